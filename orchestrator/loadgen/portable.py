"""The slower path: the same load through httpx, for what the event loop does not speak: TLS, proxies and HTTP/2.

Times are taken when httpx hands over the bytes, so they include what this process was late. Proxies come from the
usual variables (HTTPS_PROXY, NO_PROXY ...).
"""

import asyncio
import contextlib
import os
import time
from array import array
from collections.abc import Callable

import httpx

from orchestrator.loadgen.load import Load
from orchestrator.loadgen.loop import CONNECT_TIMEOUT_NS, LAG_STEPS, failed_record, fill
from orchestrator.loadgen.record import Record
from orchestrator.loadgen.schedule import SECOND, Item, Schedule
from orchestrator.loadgen.stream import Shapes, Stream, StreamError, unescaped

_LOOK_S = 0.1


class PortableLoop:
    """Like `loop.Loop`."""

    def __init__(
        self,
        load: Load,
        schedule: Schedule,
        on_record: Callable[[Record], None],
        *,
        control: int | None = None,
        on_control: Callable[[], bool] = lambda: False,
        on_look: Callable[["PortableLoop", int], None] = lambda loop, now: None,
    ) -> None:
        self._load, self._schedule, self._on_record = load, schedule, on_record
        self._control, self._on_control, self._on_look = control, on_control, on_look
        self.kernel_timestamps = False
        self.lags = array("q", bytes(8 * LAG_STEPS))
        self.in_flight = 0
        self._shapes = Shapes()

    def run(self) -> None:
        """Until the schedule has finished, or the control says stop."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        self._changed, self._stopped = asyncio.Event(), False
        if self._control is not None:
            asyncio.get_running_loop().add_reader(self._control, self._controlled)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        timeout = httpx.Timeout(self._load.stall_s, connect=CONNECT_TIMEOUT_NS / SECOND)
        async with httpx.AsyncClient(http2=True, limits=limits, timeout=timeout, verify=_certificates()) as client:
            tasks: set[asyncio.Task[None]] = set()
            while not self._schedule.finished and not self._stopped:
                now = time.time_ns()
                while (item := self._schedule.due(now)) is not None:
                    self.in_flight += 1
                    task = asyncio.create_task(self._request(client, item))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                    now = time.time_ns()
                await self._wait(now)
                self._on_look(self, time.time_ns())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _controlled(self) -> None:
        if self._on_control():
            self._stopped = True
            self._changed.set()

    async def _wait(self, now: int) -> None:
        due = self._schedule.next_time()
        wait_s = _LOOK_S if due is None else min(_LOOK_S, max(0.0, (due - now) / SECOND))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), wait_s)
        self._changed.clear()

    async def _request(self, client: httpx.AsyncClient, item: Item) -> None:
        stream = Stream(keep_text=self._load.keep_text or bool(item.rest), shapes=self._shapes)
        sent = time.time_ns()
        record = Record(
            item.index, item.request.prompt, sent, sent, sent, warmup=item.warmup, session=item.request.session,
            turn=item.request.turn, model=item.request.model,
        )  # fmt: skip
        if item.request.at is not None or item.request.turn:
            record.intended = item.intended
        try:
            left_s = self._load.timeout_s - (sent - item.intended) / SECOND
            async with asyncio.timeout(max(0.0, left_s)):
                try:
                    await self._stream(client, item, stream, record)
                except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                    if record.status or record.reconnected:
                        raise
                    record.reconnected = True  # it may have been a kept connection that the server had closed
                    await self._stream(client, item, stream, record)
        except StreamError as error:
            record.error, record.detail = error.kind, error.detail[:300]
        except (TimeoutError, httpx.ConnectTimeout) as error:
            record.error, record.detail = "timeout", str(error) or f"not complete within {self._load.timeout_s:g} s"
        except httpx.ReadTimeout:
            record.error, record.detail = "stall", f"no byte for {self._load.stall_s:g} s"
        except httpx.ConnectError as error:
            record.error, record.detail = "connect", str(error)
        except httpx.RemoteProtocolError as error:
            record.error, record.detail = "disconnected", str(error)
        except (httpx.HTTPError, OSError) as error:
            record.error, record.detail = "disconnected", str(error) or type(error).__name__
        record.ended = max(record.ended, time.time_ns() if record.error else record.ended)
        fill(record, stream, says_done=self._load.says_done)
        answer = None if record.error else stream.text or b""
        if self._load.keep_text and answer is not None:
            record.text = unescaped(answer)
        self._record(record, item, answer)

    async def _stream(self, client: httpx.AsyncClient, item: Item, stream: Stream, record: Record) -> None:
        headers = {
            "Content-Type": "application/json", "Accept": "text/event-stream", "User-Agent": "orch",
            "X-Request-Id": f"orch-{item.nonce.decode()}", **self._load.headers,
        }  # fmt: skip
        url = self._load.url.rstrip("/") + self._load.path
        async with client.stream("POST", url, content=item.body, headers=headers) as response:
            record.status = response.status_code
            if response.status_code != httpx.codes.OK:
                after = response.headers.get("retry-after", "")
                record.retry_after_s = float(after) if after.replace(".", "", 1).isdigit() else None
                said = (await response.aread()).decode(errors="replace")
                raise StreamError(f"http_{response.status_code}", said)
            async for piece in response.aiter_bytes():
                record.ended = time.time_ns()
                stream.take(piece, record.ended)
        if not stream.first_chunk:
            raise StreamError("malformed", "the answer holds no event; does the server stream?")

    def _record(self, record: Record, item: Item, answer: bytes | None) -> None:
        self.in_flight -= 1
        self._on_record(record)
        for lost in self._schedule.ended(item, record.ended, answer):
            self._on_record(failed_record(lost, record.ended, "not_sent", "an earlier turn of its session failed"))
        self._changed.set()


def _certificates() -> str | bool:
    """A private certificate authority named the usual way, else the system's."""
    return os.environ.get("SSL_CERT_FILE") or True
