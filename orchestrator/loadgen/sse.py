"""Server-sent events out of bytes that may be cut anywhere, also inside a character."""


class EventReader:
    """Collects bytes and gives the `data` of every event that they complete.

    Reads what the WHATWG specification allows: lines that end in LF, CR LF or CR, comments (`:` pings), several data
    lines per event. Names and ids of events are dropped: OpenAI's streams use none.
    """

    __slots__ = ("_data", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    @property
    def empty(self) -> bool:
        """Whether everything that came so far is complete events."""
        return not self._rest and not self._data

    def feed(self, piece: bytes) -> list[bytes]:
        """The payloads of the events that end in this piece."""
        if self.empty and _is_one_event(piece):
            return [piece[6:-2]]
        lines = (self._rest + piece).replace(b"\r\n", b"\n").split(b"\n")
        self._rest = lines.pop()
        if b"\r" not in self._rest and not any(b"\r" in line for line in lines):
            return [event for line in lines if (event := self._line(line)) is not None]
        return self._with_returns(lines)

    def _with_returns(self, lines: list[bytes]) -> list[bytes]:
        """Lines may end in a lone CR; one at the very end waits, since its LF may be in the next piece."""
        held = b"\r" if self._rest.endswith(b"\r") else b""
        parts = b"\n".join([*lines, self._rest.removesuffix(held)]).replace(b"\r", b"\n").split(b"\n")
        self._rest = parts.pop() + held
        return [event for line in parts if (event := self._line(line)) is not None]

    def _line(self, line: bytes) -> bytes | None:
        if line:
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" "))
            return None
        data, self._data = self._data, []
        return b"\n".join(data) if data else None


def _is_one_event(piece: bytes) -> bool:
    """As most servers write them: one event, one line of data, a piece."""
    return piece.endswith(b"\n\n") and piece.startswith(b"data: ") and piece.count(b"\n") == 2 and b"\r" not in piece
