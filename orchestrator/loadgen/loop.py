"""The event loop of one client process: non-blocking HTTP/1.1 connections, timed by the kernel.

On Linux every read brings the time at which the kernel received the last of its bytes (SO_TIMESTAMPNS, clock
CLOCK_REALTIME): the time for which an answer then waited for this process is known, reported as lag, and never
counted as the server's. Where a read holds several events, because this process was late or the server wrote them at
once, all of them have the time of the last. Elsewhere the time is taken right after the read.
"""

import contextlib
import errno
import gc
import select
import socket
import struct
import sys
import time
from array import array
from collections import deque
from collections.abc import Callable
from typing import Any

from orchestrator.loadgen.http1 import ProtocolError, Response
from orchestrator.loadgen.load import Load
from orchestrator.loadgen.record import Record
from orchestrator.loadgen.schedule import SECOND, Item, Schedule
from orchestrator.loadgen.stream import Shapes, Stream, StreamError, unescaped

CONNECT_TIMEOUT_NS = 10 * SECOND
_LOOK_NS = SECOND // 10
"""How often time limits are looked at."""
_READ = 16_384
_UNDERSTAND_NS = 1_000_000
"""For so long at most, answers are worked on before arrivals are read again."""
_MAX_UNREAD = 8_000_000
"""With more bytes than this it is hopeless to keep up, and memory counts for more than exact times."""
_SPIN_NS = 1_000_000
"""epoll waits for whole milliseconds; the rest before a planned send is waited for actively."""
_SO_TIMESTAMPNS = 35
_TIMESTAMP = struct.Struct("@ll")
_AT_ONCE = 32
"""Requests that are begun, and connections that are taken up, before answers are read again: an answer that waits for
long is merged with the next one in the kernel, which keeps the time of the last alone."""
_GIVE_UP_KEEPING = 3
"""After so many kept connections that the server had closed, each request gets a new one."""

LAG_STEPS = 65_536

_time_ns = time.time_ns
_IN, _OUT = select.POLLIN, select.POLLOUT  # epoll's and poll's are the same


class _Poll:
    """`select.poll` with the interface of epoll, for systems without that."""

    def __init__(self) -> None:
        poll = select.poll()
        self.register, self.modify, self.unregister, self._poll = poll.register, poll.modify, poll.unregister, poll.poll

    def poll(self, timeout_s: float, _: int) -> list[tuple[int, int]]:
        return self._poll(timeout_s * 1000)

    def close(self) -> None:
        """Nothing is held."""


class _Connection:
    __slots__ = (
        "began", "connecting", "first_sent", "item", "lag", "last", "new", "pieces", "response", "sent", "sock",
        "unsent",
    )  # fmt: skip

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.item: Item | None = None
        self.response: Response | None = None
        self.connecting = self.new = True
        self.pieces: list[tuple[bytes | OSError, int]] = []
        """What was read, with its time, and is not understood yet; the error or b"" that ended it is the last."""
        self.unsent: bytes | memoryview = b""
        self.first_sent = 0
        """When its request was sent before, on a connection that the server had closed."""
        self.sent = 0
        self.began = 0
        """When this connection was asked for."""
        self.last = 0
        """When something last arrived."""
        self.lag = 0


class Loop:
    """Sends what `schedule` says to one address until it has finished."""

    def __init__(
        self,
        load: Load,
        schedule: Schedule,
        address: tuple[int, tuple[str, int]],
        host: str,
        on_record: Callable[[Record], None],
        *,
        control: int | None = None,
        on_control: Callable[[], bool] = lambda: False,
        on_look: Callable[["Loop", int], None] = lambda loop, now: None,
    ) -> None:
        """`address` is (family, sockaddr); `control` is a descriptor, and `on_control` says whether to stop at once
        when it can be read; `on_look` is called about ten times a second."""
        self._load, self._schedule, self._address = load, schedule, address
        self._on_record, self._control, self._on_control, self._on_look = on_record, control, on_control, on_look
        lines = {
            "Host": host,
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            "User-Agent": "orch",
            **load.headers,
        }
        path = load.url.partition("://")[2].partition("/")[2].rstrip("/")
        head = f"POST {'/' + path if path else ''}{load.path} HTTP/1.1\r\n"
        self._head = (head + "".join(f"{name}: {value}\r\n" for name, value in lines.items())).encode("latin-1")
        self._poll: Any = select.epoll() if hasattr(select, "epoll") else _Poll()
        self._connections: dict[int, _Connection] = {}
        self._idle: list[_Connection] = []
        self._unread: deque[_Connection] = deque()
        """Connections with pieces that were read and not understood yet."""
        self._unread_bytes = 0
        self._stale = 0
        self._timeout_ns, self._stall_ns = int(load.timeout_s * SECOND), int(load.stall_s * SECOND)
        self.in_flight = 0
        self._shapes = Shapes()
        self.kernel_timestamps = sys.platform == "linux"
        self.lags = array("q", bytes(8 * LAG_STEPS))
        """Histogram of the reads by their lag, in steps of 1,024 ns; the last step holds all longer ones."""

    def run(self) -> None:
        """Until the schedule has finished, or the control says stop."""
        if self._control is not None:
            self._poll.register(self._control, _IN)
        gc.disable()  # nothing here makes cycles, and a collection would be a stall of its own
        try:
            self._run()
        finally:
            gc.enable()
            for connection in self._connections.values():
                connection.sock.close()
            self._poll.close()

    def _run(self) -> None:
        schedule, look = self._schedule, 0
        while True:
            now = _time_ns()
            for _ in range(_AT_ONCE):
                item = schedule.due(now)
                if item is None:
                    break
                self._begin(item)
                now = _time_ns()
            if schedule.finished:
                return
            if now >= look:
                look = now + _LOOK_NS
                self._limits(now)
                self._on_look(self, now)
            if not self._wait(schedule.next_time(), now, look):
                return

    def _wait(self, due: int | None, now: int, look: int) -> bool:
        """Read what arrives until then, and understand some of it; False to stop."""
        wait_ns = 0 if self._unread else (look if due is None else min(look, due - _SPIN_NS)) - now
        connections, writable = self._connections, 0
        for fd, mask in self._poll.poll(wait_ns // 1_000_000 / 1000 if wait_ns > 0 else 0, 1024):
            connection = connections.get(fd)
            if connection is None:
                if fd == self._control and self._on_control():
                    return False
            elif connection.connecting or mask & _OUT:
                writable += 1
                if writable <= _AT_ONCE:
                    self._writable(connection)
            else:
                self._read(connection)
        if self._unread:
            self._understand(_time_ns() + _UNDERSTAND_NS)
        return True

    def _read(self, connection: _Connection) -> None:
        """Put what has arrived, with its time, beside the connection: it is understood when nothing is left to read."""
        piece: bytes | OSError
        try:
            if self.kernel_timestamps:
                piece, ancillary, _, _ = connection.sock.recvmsg(_READ, 64)
                at = _time_ns()
                if ancillary:
                    seconds, nanoseconds = _TIMESTAMP.unpack(ancillary[0][2])
                    woken, at = at, seconds * SECOND + nanoseconds
                    lag = woken - at
                    if lag > 0:  # the clock may have been set
                        step = lag >> 10
                        self.lags[step if step < LAG_STEPS else -1] += 1
                        if lag > connection.lag:
                            connection.lag = lag
            else:
                piece, at = connection.sock.recv(_READ), _time_ns()
        except BlockingIOError:
            return
        except OSError as error:
            piece, at = error, _time_ns()
        if not piece or isinstance(piece, OSError):
            self._poll.unregister(connection.sock.fileno())
        if not connection.pieces:
            self._unread.append(connection)
        connection.pieces.append((piece, at))
        self._unread_bytes += len(piece) if isinstance(piece, bytes) else 0
        connection.last = at

    def _understand(self, until: int) -> None:
        """Work on what was read, for a limited time: meanwhile the kernel merges what arrives."""
        while self._unread:
            connection = self._unread.popleft()
            pieces, connection.pieces = connection.pieces, []
            for piece, at in pieces:
                self._unread_bytes -= len(piece) if isinstance(piece, bytes) else 0
                if connection.sock.fileno() >= 0:
                    self._take(connection, piece, at)
            if _time_ns() > until and self._unread_bytes < _MAX_UNREAD:
                return

    def _take(self, connection: _Connection, piece: bytes | OSError, at: int) -> None:
        response = connection.response
        if not piece or isinstance(piece, OSError):
            self._lost(connection, piece or None, at)
        elif response is None:
            self._close(connection)  # bytes that nobody asked for
        else:
            try:
                complete = response.feed(piece, at)
            except StreamError as error:
                self._failed(connection, error.kind, error.detail, at)
            except ProtocolError as error:
                self._failed(connection, "malformed", str(error), at)
            else:
                if complete:
                    self._complete(connection, at)

    # sending

    def _begin(self, item: Item) -> None:
        self.in_flight += 1
        while self._idle:
            connection = self._idle.pop()
            if connection.sock.fileno() >= 0:
                self._send(connection, item)
                return
        self._connect(item)

    def _connect(self, item: Item, *, first_sent: int = 0) -> None:
        """A new connection for the request, which may have been sent before, on one that the server had closed."""
        family, address = self._address
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            kind = "client_files" if error.errno in (errno.EMFILE, errno.ENFILE) else "connect"
            self._record(failed_record(item, _time_ns(), kind, str(error)), item, None)
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.kernel_timestamps:
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        connection = _Connection(sock)
        connection.item, connection.first_sent = item, first_sent
        connection.began = connection.last = connection.sent = _time_ns()
        self._connections[sock.fileno()] = connection
        code = sock.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            self._connections.pop(sock.fileno())
            sock.close()
            self._record(
                failed_record(item, connection.began, "connect", errno.errorcode.get(code, str(code))), item, None
            )
            return
        self._poll.register(sock.fileno(), _IN | _OUT)

    def _send(self, connection: _Connection, item: Item) -> None:
        connection.item = item
        connection.response = Response(Stream(keep_text=self._load.keep_text or bool(item.rest), shapes=self._shapes))
        connection.lag = 0
        data = b"%bX-Request-Id: orch-%b\r\nContent-Length: %d\r\n\r\n%b" % (
            self._head, item.nonce, len(item.body), item.body,
        )  # fmt: skip
        connection.sent = connection.last = _time_ns()
        self._write(connection, data)

    def _write(self, connection: _Connection, data: bytes | memoryview) -> None:
        try:
            count = connection.sock.send(data)
        except BlockingIOError:
            count = 0
        except OSError as error:
            self._lost(connection, error, _time_ns())
            return
        waiting = bool(connection.unsent)
        connection.unsent = memoryview(data)[count:] if count < len(data) else b""
        if bool(connection.unsent) != waiting:
            interest = _IN | (_OUT if connection.unsent else 0)
            self._poll.modify(connection.sock.fileno(), interest)

    def _writable(self, connection: _Connection) -> None:
        if not connection.connecting:
            self._write(connection, connection.unsent)
            return
        code = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._failed(connection, "connect", errno.errorcode.get(code, str(code)), _time_ns())
            return
        connection.connecting = False
        assert connection.item is not None, "a connection is made for a request"
        self._poll.modify(connection.sock.fileno(), _IN)
        self._send(connection, connection.item)

    # ends

    def _complete(self, connection: _Connection, now: int) -> None:
        response = connection.response
        assert response is not None, "what is complete was begun"
        if not response.is_stream:
            self._failed(connection, f"http_{response.status}", response.body, now)
            return
        if not response.stream.first_chunk:
            self._failed(connection, "malformed", "the answer holds no event; does the server stream?", now)
            return
        keep = response.keep_alive and not connection.unsent and self._stale < _GIVE_UP_KEEPING
        self._finish(connection, now, keep=keep)

    def _lost(self, connection: _Connection, error: OSError | None, now: int) -> None:
        """The connection is closed (None) or broken."""
        item, response = connection.item, connection.response
        if item is None:
            self._close(connection)
        elif connection.connecting:
            self._failed(connection, "connect", str(error or "refused"), now)
        elif response is not None and not response.begun and not connection.new:
            # the server had closed the kept connection before it saw this request: once more, on a new one
            self._stale += 1
            self._close(connection)
            self._connect(item, first_sent=connection.sent)
        elif error is None and response is not None and response.close():
            self._complete(connection, now)
        elif error is None and response is not None and response.stream.done:
            self._finish(connection, now, keep=False)  # only the end of the framing is missing
        else:
            said = str(error) if error else "the server closed the connection inside the answer"
            self._failed(connection, "disconnected", said, now)

    def _failed(self, connection: _Connection, kind: str, detail: str, now: int) -> None:
        self._finish(connection, now, keep=False, error=kind, detail=detail)

    def _finish(
        self, connection: _Connection, now: int, *, keep: bool, error: str | None = None, detail: str | None = None
    ) -> None:  # fmt: skip
        item, response = connection.item, connection.response
        assert item is not None, "only a request can end"
        record = _record(item, connection, now, says_done=self._load.says_done)
        record.error, record.detail = error, detail[:300] if detail else None
        connection.item = connection.response = None
        if keep:
            connection.new, connection.first_sent = False, 0
            self._idle.append(connection)
        else:
            self._close(connection)
        answer = response.stream.text if response is not None and error is None else None
        if answer is None and error is None:
            answer = b""
        if self._load.keep_text and answer is not None:
            record.text = unescaped(answer)
        self._record(record, item, answer)

    def _record(self, record: Record, item: Item, answer: bytes | None) -> None:
        self.in_flight -= 1
        self._on_record(record)
        for lost in self._schedule.ended(item, record.ended, answer):
            self._on_record(failed_record(lost, record.ended, "not_sent", "an earlier turn of its session failed"))

    def _close(self, connection: _Connection) -> None:
        fd = connection.sock.fileno()
        if self._connections.pop(fd, None) is not None:
            with contextlib.suppress(OSError, KeyError):  # it may be out of the poll already
                self._poll.unregister(fd)
            connection.sock.close()

    def _limits(self, now: int) -> None:
        """End what took too long."""
        for connection in list(self._connections.values()):
            item = connection.item
            if item is None:
                continue
            if now - item.intended > self._timeout_ns:
                self._failed(connection, "timeout", f"not complete within {self._load.timeout_s:g} s", now)
            elif connection.connecting and now - connection.began > CONNECT_TIMEOUT_NS:
                self._failed(connection, "timeout", "no connection within 10 s", now)
            elif not connection.connecting and now - connection.last > self._stall_ns:
                self._failed(connection, "stall", f"no byte for {self._load.stall_s:g} s", now)


def _record(item: Item, connection: _Connection, ended: int, *, says_done: bool) -> Record:
    sent = connection.first_sent or connection.sent
    record = Record(
        index=item.index,
        prompt=item.request.prompt,
        intended=item.intended if item.request.at is not None or item.request.turn else sent,
        sent=sent,
        ended=ended,
        reconnected=bool(connection.first_sent),
        connect=connection.sent - connection.began if connection.new else None,
        lag=connection.lag,
        warmup=item.warmup,
        session=item.request.session,
        turn=item.request.turn,
        model=item.request.model,
    )
    response = connection.response
    if response is not None:
        record.status, record.retry_after_s = response.status, response.retry_after_s
        fill(record, response.stream, says_done=says_done)
    return record


def fill(record: Record, stream: Stream, *, says_done: bool) -> None:
    """What the stream said, into its record."""
    usage = stream.usage
    record.first_chunk, record.content = stream.first_chunk, stream.content
    record.prompt_tokens, record.completion_tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
    record.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    record.reasoning_tokens = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
    record.finish_reason = stream.finish_reason
    record.done = stream.done if says_done else stream.finish_reason is not None
    record.server_ttft_ms = stream.server_ttft_ms


def failed_record(item: Item, sent: int, kind: str, detail: str) -> Record:
    """The record of a request that never reached a connection."""
    return Record(
        item.index, item.request.prompt, item.intended, sent, sent, error=kind, detail=detail, warmup=item.warmup,
        session=item.request.session, turn=item.request.turn, model=item.request.model,
    )  # fmt: skip
