"""One HTTP/1.1 response whose body is a stream of events: its framing, out of bytes that may be cut anywhere."""

from orchestrator.loadgen.stream import Stream

_MAX_HEAD = 65_536
_MAX_BODY = 4_096
"""Of an answer that is no stream, this much is kept as what the server said."""


class ProtocolError(Exception):
    """The bytes are not HTTP/1.1."""


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
        head, rest = data[:end].lower() + b"\r\n", data[end + 4 :]
        self._status_line(head)
        if self.status < 200:
            self.status = 0
            return self._head(rest, now) if rest else False
        self._state = self._framing(head)
        if self._state == self._counted and self._left == 0:
            return True
        return self._state(rest, now) if rest else False

    def _status_line(self, head: bytes) -> None:
        try:
            assert head.startswith(b"http/1."), "checked by the caller's prefix"
            self.status = int(head[9:12])
        except (ValueError, AssertionError) as error:
            raise ProtocolError(f"not an HTTP/1.1 response: {head[:80]!r}") from error
        self._take = self.stream.take if self.is_stream else self._keep
        self.keep_alive = not head.startswith(b"http/1.0") and b"\r\nconnection: close\r\n" not in head
        if self.status in (429, 503):
            value = _header(head, b"retry-after")
            self.retry_after_s = float(value) if value and value.replace(b".", b"", 1).isdigit() else None

    def _framing(self, head: bytes):  # type: ignore[no-untyped-def]  # one of our own methods
        if b"\r\ntransfer-encoding: chunked\r\n" in head or b"chunked" in (_header(head, b"transfer-encoding") or b""):
            return self._size_line
        length = _header(head, b"content-length")
        if length is None:
            self.keep_alive = False
            return self._until_close
        if not length.isdigit():
            raise ProtocolError(f"content-length is {length!r}")
        self._left = int(length)
        return self._counted

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


def _header(head: bytes, name: bytes) -> bytes | None:
    """The value of a header in a head in lower case that ends with CRLF."""
    start = head.find(b"\r\n" + name + b":")
    if start < 0:
        return None
    start += len(name) + 3
    return head[start : head.index(b"\r\n", start)].strip()
