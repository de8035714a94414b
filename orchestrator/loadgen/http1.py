"""One HTTP/1.1 response whose body is a stream of events: its framing, out of bytes that may be cut anywhere."""

from dataclasses import dataclass
from functools import lru_cache

from orchestrator.loadgen.stream import Stream

_MAX_HEAD = 65_536
_MAX_BODY = 4_096
"""Of an answer that is no stream, this much is kept as what the server said."""


class ProtocolError(Exception):
    """The bytes are not HTTP/1.1."""


@dataclass(frozen=True, slots=True)
class _Head:
    """What the lines before the body say."""

    status: int
    keep_alive: bool
    retry_after_s: float | None
    chunked: bool
    length: int | None
    """Bytes of the body; None: it comes in chunks, or ends with the connection."""


class Response:
    """Takes the bytes of one response; its events go to `stream` as they arrive."""

    __slots__ = ("_body", "_left", "_rest", "_state", "_take", "keep_alive", "retry_after_s", "status", "stream")

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.status = 0
        self.keep_alive = True
        self.retry_after_s: float | None = None
        self._rest = b""
        self._left = 0
        """Bytes of the current chunk, or of the body, that are still to come."""
        self._body = bytearray()
        self._take = stream.take
        """Where the bytes of the body go: to the stream, or to `_keep` with any other status than 200."""
        self._state = self._head

    def feed(self, data: bytes, now: int) -> bool:
        """Bytes that arrived at `now`; whether the response is complete. Raises ProtocolError and StreamError."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        return self._state(data, now)

    def close(self) -> bool:
        """The server closed the connection; whether that is a proper end of this response."""
        return self._state == self._until_close

    @property
    def begun(self) -> bool:
        """Whether anything of the answer has arrived."""
        return self.status > 0 or bool(self._rest)

    @property
    def body(self) -> str:
        """The beginning of a body that is no stream."""
        return self._body.decode(errors="replace")

    @property
    def is_stream(self) -> bool:
        """Whether its body is read as events: any status but 200 comes with a text for people."""
        return self.status == 200

    def _head(self, data: bytes, now: int) -> bool:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if len(data) > _MAX_HEAD or not b"HTTP/1.".startswith(data[:7]):
                raise ProtocolError(f"not an HTTP/1.1 response: {data[:80]!r}")
            self._rest = data
            return False
        head, rest = _parsed(data[:end]), data[end + 4 :]
        if head.status < 200:
            return self._head(rest, now) if rest else False
        self.status, self.keep_alive, self.retry_after_s = head.status, head.keep_alive, head.retry_after_s
        if head.status != 200:
            self._take = self._keep
        if head.chunked:
            self._state = self._size_line
        elif head.length is None:
            self._state = self._until_close
        else:
            self._state, self._left = self._counted, head.length
            if head.length == 0:
                return True
        return self._state(rest, now) if rest else False

    def _keep(self, piece: bytes, now: int) -> None:
        if len(self._body) < _MAX_BODY:
            self._body += piece

    def _size_line(self, data: bytes, now: int) -> bool:
        """At the start of a chunk: `1a\\r\\n`, 26 bytes, `\\r\\n`, and so on."""
        position, size, take = 0, len(data), self._take
        while position < size:
            end = data.find(b"\r\n", position)
            if end < 0:
                break
            try:
                length = int(data[position:end], 16)
            except ValueError:
                length = -1
            if length < 0:
                length = _chunk_length(data[position:end])
            first, last = end + 2, end + 2 + length
            if length == 0:
                return self._trailer(data[first:], now)
            if last + 2 <= size:
                take(data[first:last], now)
                position = last + 2
                continue
            self._left = length + 2
            self._state = self._in_chunk
            return self._in_chunk(data[first:], now)
        self._rest = data[position:]
        if len(self._rest) > _MAX_BODY:
            raise ProtocolError(f"not the length of a chunk: {self._rest[:80]!r}")
        return False

    def _in_chunk(self, data: bytes, now: int) -> bool:
        """Inside a chunk whose end has not arrived; its bytes count when they arrive."""
        inside = data[: max(0, self._left - 2)]
        if inside:
            self._take(inside, now)
        if len(data) < self._left:
            self._left -= len(data)
            return False
        rest, self._left = data[self._left :], 0
        self._state = self._size_line
        return self._size_line(rest, now)

    def _trailer(self, data: bytes, now: int) -> bool:
        """After the chunk of length 0: header lines, mostly none, and an empty line."""
        self._state = self._trailer
        if data.startswith(b"\r\n") or b"\r\n\r\n" in data:
            return True
        self._rest = data
        return False

    def _counted(self, data: bytes, now: int) -> bool:
        piece = data[: self._left]
        self._left -= len(piece)
        if piece:
            self._take(piece, now)
        return self._left == 0

    def _until_close(self, data: bytes, now: int) -> bool:
        self._take(data, now)
        return False


def _chunk_length(line: bytes) -> int:
    try:
        length = int(line.partition(b";")[0], 16)  # what follows a semicolon is a chunk extension
    except ValueError:
        length = -1
    if length < 0:
        raise ProtocolError(f"not the length of a chunk: {line[:80]!r}")
    return length


@lru_cache(maxsize=64)  # the heads of a server's answers differ in their date alone
def _parsed(head: bytes) -> _Head:
    """A head without its empty line. Raises ProtocolError."""
    lines = head.lower() + b"\r\n"
    if not lines.startswith(b"http/1.") or not lines[9:12].isdigit():
        raise ProtocolError(f"not an HTTP/1.1 response: {head[:80]!r}")
    status = int(lines[9:12])
    chunked = b"chunked" in (_header(lines, b"transfer-encoding") or b"")
    length = None if chunked else _header(lines, b"content-length")
    if length is not None and not length.isdigit():
        raise ProtocolError(f"content-length is {length!r}")
    ends = lines.startswith(b"http/1.0") or (_header(lines, b"connection") or b"") == b"close"
    return _Head(
        status,
        keep_alive=not ends and (chunked or length is not None),
        retry_after_s=_retry_after(lines) if status in (429, 503) else None,
        chunked=chunked,
        length=None if length is None else int(length),
    )


def _retry_after(lines: bytes) -> float | None:
    value = _header(lines, b"retry-after")
    return float(value) if value and value.replace(b".", b"", 1).isdigit() else None


def _header(head: bytes, name: bytes) -> bytes | None:
    """The value of a header in a head in lower case that ends with CRLF."""
    start = head.find(b"\r\n" + name + b":")
    if start < 0:
        return None
    start += len(name) + 3
    return head[start : head.index(b"\r\n", start)].strip()
