"""A streaming client for OpenAI's chat completions: one request in, one `Record` of when its answer arrived out.

Times are taken when the event loop hands over the bytes, before they are parsed: everything that one piece holds has
the same time. What the loop itself was late is not corrected; `drive.py` reports how busy the client was.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientOSError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ServerDisconnectedError,
    TCPConnector,
    TraceConfig,
    TraceConnectionReuseconnParams,
)

from orchestrator.loadgen._old_metrics import Record
from orchestrator.loadgen.sse import EventReader

DETAIL_CHARACTERS = 300
CONNECT_TIMEOUT_S = 10


@dataclass
class _Stream:
    """What has been read of one answer."""

    content: list[float] = field(default_factory=list)
    usage: Mapping[str, Any] = field(default_factory=dict)
    finish_reason: str | None = None
    done: bool = False
    reused: bool = False
    """The request went out on a kept connection."""
    reconnected: bool = False

    def take(self, payload: bytes, now: float) -> None:
        """One event. Raises _StreamError for an error object or for something that is no chunk."""
        if payload == b"[DONE]":
            self.done = True
            return
        try:
            chunk = json.loads(payload)
            error = chunk.get("error")
            choices, usage = chunk.get("choices") or [], chunk.get("usage")
            for choice in choices:
                if (choice.get("delta") or {}).get("content"):
                    self.content.append(now)
                self.finish_reason = choice.get("finish_reason") or self.finish_reason
        except (ValueError, AttributeError, TypeError) as problem:
            raise _StreamError("malformed", payload.decode(errors="replace")) from problem
        if error:
            raise _StreamError("server_error", json.dumps(error))
        self.usage = usage or self.usage

    def record(self, sent: float, ended: float) -> Record:
        return Record(
            sent=sent,
            ended=ended,
            content=tuple(self.content),
            prompt_tokens=self.usage.get("prompt_tokens"),
            completion_tokens=self.usage.get("completion_tokens"),
            cached_tokens=(self.usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
            finish_reason=self.finish_reason,
            done=self.done,
            reconnected=self.reconnected,
        )


class _StreamError(Exception):
    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind)
        self.kind, self.detail = kind, detail


class Client:
    """Keeps connections, and sends a request again, once, when the server had closed the kept one it was given to.

    llama.cpp's server promises to keep a connection and closes it after every stream; the next request may be written
    before that is seen. `sent` stays the first time, and the record says that it happened. Nothing else is repeated.
    """

    async def __aenter__(self) -> Self:
        reuse = TraceConfig()
        reuse.on_connection_reuseconn.append(_mark_reused)
        self._kept = ClientSession(connector=TCPConnector(limit=0), trace_configs=[reuse])
        self._fresh = ClientSession(connector=TCPConnector(limit=0, force_close=True))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._kept.close()
        await self._fresh.close()

    async def chat(self, url: str, body: Mapping[str, Any], *, timeout_s: float) -> Record:
        """Send `body` to `{url}/chat/completions` and read its stream to the end; failures are in the record.

        `body` must ask for a stream with usage, as `drive.request_body` does.
        """
        stream, sent = _Stream(), time.perf_counter()
        try:
            async with await self._post(f"{url}/chat/completions", body, timeout_s, stream) as response:
                ended = await _read(response, stream)
            return stream.record(sent, ended)
        except _StreamError as error:
            kind, detail = error.kind, error.detail
        except TimeoutError:
            kind, detail = "timeout", f"no complete answer within {timeout_s:g} s"
        except ClientConnectorError as error:
            kind, detail = "connect", str(error)
        except (ClientError, OSError) as error:
            kind, detail = "disconnected", str(error) or type(error).__name__
        failed = stream.record(sent, time.perf_counter())
        return replace(failed, error=kind, detail=detail[:DETAIL_CHARACTERS])

    async def _post(self, url: str, body: Mapping[str, Any], timeout_s: float, stream: _Stream) -> ClientResponse:
        timeout = ClientTimeout(total=timeout_s, sock_connect=min(timeout_s, CONNECT_TIMEOUT_S))
        try:
            return await self._kept.post(url, json=body, timeout=timeout, trace_request_ctx=stream)
        except (ServerDisconnectedError, ClientOSError):
            if not stream.reused:
                raise
        stream.reconnected = True
        return await self._fresh.post(url, json=body, timeout=timeout)


async def _mark_reused(_: ClientSession, context: Any, __: TraceConnectionReuseconnParams) -> None:
    context.trace_request_ctx.reused = True


async def _read(response: ClientResponse, stream: _Stream) -> float:
    """Reads the answer into `stream`; gives the time when its last bytes arrived."""
    if response.status != 200:
        raise _StreamError(f"http_{response.status}", await response.text(errors="replace"))
    events, now = EventReader(), time.perf_counter()
    async for piece in response.content.iter_any():
        now = time.perf_counter()
        for payload in events.feed(piece):
            stream.take(payload, now)
    return now
