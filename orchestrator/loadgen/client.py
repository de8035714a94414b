"""A streaming client for OpenAI's chat completions: one request in, one `Record` of when its answer arrived out.

Times are taken when the event loop hands over the bytes, before they are parsed: everything that one piece holds has
the same time. What the loop itself was late is not corrected; `drive.py` reports how busy the client was.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import ClientConnectorError, ClientError, ClientSession, ClientTimeout

from orchestrator.loadgen.metrics import Record
from orchestrator.loadgen.sse import EventReader

DETAIL_CHARACTERS = 300


@dataclass
class _Stream:
    """What has been read of one answer."""

    content: list[float] = field(default_factory=list)
    usage: Mapping[str, Any] = field(default_factory=dict)
    finish_reason: str | None = None
    done: bool = False

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
        )


class _StreamError(Exception):
    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind)
        self.kind, self.detail = kind, detail


async def chat(session: ClientSession, url: str, body: Mapping[str, Any], *, timeout_s: float) -> Record:
    """Send `body` to `{url}/chat/completions` and read its stream to the end; failures are in the record, not raised.

    `body` must ask for a stream with usage, as `drive.request_body` does.
    """
    stream, sent = _Stream(), time.perf_counter()
    try:
        ended = await _read(session, f"{url}/chat/completions", body, timeout_s, stream)
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


async def _read(
    session: ClientSession, url: str, body: Mapping[str, Any], timeout_s: float, stream: _Stream
) -> float:  # fmt: skip
    """Reads the answer into `stream`; gives the time when its last bytes arrived."""
    events = EventReader()
    timeout = ClientTimeout(total=timeout_s, sock_connect=min(timeout_s, 10))
    async with session.post(url, json=body, timeout=timeout) as response:
        if response.status != 200:
            raise _StreamError(f"http_{response.status}", await response.text(errors="replace"))
        now = time.perf_counter()
        async for piece in response.content.iter_any():
            now = time.perf_counter()
            for payload in events.feed(piece):
                stream.take(payload, now)
    return now
