"""What the events of one answer say: when its deltas arrived, its usage, its finish reason, its errors.

A token's event is not turned into objects: the events of an answer differ in nothing but the text of their delta, so
the bytes before and after that text are learned from one event that was parsed whole, and every further event that
has the same bytes around a non-empty JSON string is a delta. The answers of a server differ in nothing but their ids,
so that what one has taught is used for the next. Anything else (a quote inside the text, a usage that was not seen
before) is parsed as JSON: the short cut never decides what an event means.
"""

import json
from array import array
from typing import Any

from orchestrator.loadgen.sse import EventReader

_TEXT_KEYS = ("content", "reasoning_content", "reasoning")
_END = b"data: [DONE]\n\n"
_WORTH_LEARNING = 3
"""Deltas after which it pays to learn the shape of the others."""
_KNOWN = 256
_decode = json.JSONDecoder().raw_decode
_PROBE = "0"
"""Stands for the text when a template is checked; no number of the event can be mistaken for it, it is quoted."""


class StreamError(Exception):
    """The stream carries an error object, or something that is no completion chunk; `kind` as in record.py."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind)
        self.kind, self.detail = kind, detail


Meaning = tuple[str | None, dict[str, Any] | None, float | None]
"""What an event without text says: finish reason, usage, the server's own TTFT in ms."""


class Shapes:
    """What the events of one server have in common but for their ids: learned from one answer, used for the next."""

    __slots__ = ("after", "between", "known", "prefix")

    def __init__(self) -> None:
        self.begin_with(b"")

    def begin_with(self, prefix: bytes) -> None:
        """Forget all, for events that begin with `prefix` before their id."""
        self.prefix = prefix
        self.between = self.after = b""
        """Between the id and the text of a delta, and after the text."""
        self.known: dict[bytes, Meaning] = {}
        """By everything after the id, the end of the event included."""

    def remember(self, rest: bytes, meaning: Meaning) -> None:
        """Keep the meaning of an event, among a bounded number of others."""
        if len(self.known) >= _KNOWN:
            self.known.clear()
        self.known[rest] = meaning


class Stream:
    """Takes the bytes of a stream of events as they arrive; times are ns of any one clock."""

    __slots__ = (
        "_after", "_around", "_before", "_between_events", "_events", "_head",
        "_opening", "_pieces", "_shapes", "_start", "_tail", "content", "done",
        "finish_reason", "first_chunk", "server_ttft_ms", "usage",
    )  # fmt: skip

    def __init__(self, *, keep_text: bool = False, shapes: Shapes | None = None) -> None:
        """`shapes` is shared by the streams of one server."""
        self.content: array[int] = array("q")
        self.first_chunk = 0
        self.usage: dict[str, Any] = {}
        self.finish_reason: str | None = None
        self.done = False
        self.server_ttft_ms: float | None = None
        self._shapes = shapes or Shapes()
        self._events = EventReader()
        self._pieces: list[bytes] | None = [] if keep_text else None
        self._opening = self._start = b""
        """How the events of this answer begin, their id included: as a payload, and as the bytes of an event."""
        # around the text of a delta, as a payload (before, after) and as the bytes of an event of its own (head, tail)
        self._before = self._after = b""
        self._head = self._tail = b"\0"
        self._around = 2
        """Bytes of both together."""
        self._between_events = True
        """All that came so far is complete events."""

    def take(self, piece: bytes, now: int) -> None:
        """Bytes that arrived at `now`, cut anywhere. Raises StreamError."""
        head, tail = self._head, self._tail
        if self._between_events and piece.startswith(head) and piece.endswith(tail) and len(piece) >= self._around:
            text = piece[len(head) : -len(tail)]
            # as _delta does, without a call for each token
            if b'"' not in text and b"\n" not in text and b"\r" not in text and text[-1:] != b"\\":
                if text:
                    self.content.append(now)
                    if self._pieces is not None:
                        self._pieces.append(text)
                return
        if self._between_events and self._opening:
            meaning = self._shapes.known.get(piece[len(self._start) :]) if piece.startswith(self._start) else None
            if meaning is not None:
                self._apply(meaning)
                return
            if piece == _END:
                self.done = True
                return
        for payload in self._events.feed(piece):
            self._event(payload, now)
        self._between_events = self._events.empty

    @property
    def text(self) -> bytes | None:
        """The content so far as the inside of a JSON string, escapes included; None unless it is kept."""
        return None if self._pieces is None else b"".join(self._pieces)

    def _delta(self, text: bytes, now: int) -> bool:
        """Whether `text` is the whole inside of a JSON string; then it is counted."""
        if b'"' in text or b"\n" in text or b"\r" in text or text.endswith(b"\\"):
            return False
        if text:
            self.content.append(now)
            if self._pieces is not None:
                self._pieces.append(text)
        return True

    def _event(self, payload: bytes, now: int) -> None:
        if not self.first_chunk:
            self.first_chunk = now
            self._open(payload)
        before, after = self._before, self._after
        if (
            before
            and payload.startswith(before)
            and payload.endswith(after)
            and len(payload) >= len(before) + len(after)
            and self._delta(payload[len(before) : -len(after)], now)
        ):
            return
        if payload == b"[DONE]":
            self.done = True
            return
        opening, shapes = self._opening, self._shapes
        rest = payload[len(opening) :] + b"\n\n" if opening and payload.startswith(opening) else b""
        meaning = shapes.known.get(rest)
        if meaning is None:
            deltas = len(self.content)
            meaning = self._parsed(payload, now)
            if rest and len(self.content) == deltas:
                shapes.remember(rest, meaning)
        self._apply(meaning)

    def _apply(self, meaning: Meaning) -> None:
        finish_reason, usage, server_ttft_ms = meaning
        self.finish_reason = finish_reason or self.finish_reason
        self.usage = usage or self.usage
        self.server_ttft_ms = server_ttft_ms or self.server_ttft_ms

    def _open(self, payload: bytes) -> None:
        """Take over what was learned from other answers, if the first event begins as theirs do."""
        prefix, opening = _opening(payload)
        if not opening:
            return
        shapes, self._opening, self._start = self._shapes, opening, b"data: " + opening
        if prefix != shapes.prefix:
            shapes.begin_with(prefix)
        if shapes.after:
            self._put_around(opening + shapes.between, shapes.after)

    def _parsed(self, payload: bytes, now: int) -> Meaning:
        try:
            chunk = _parse(payload)
            if chunk.get("error"):
                raise StreamError("server_error", json.dumps(chunk["error"]))
            finish_reason = None
            for choice in chunk.get("choices") or ():
                finish_reason = choice.get("finish_reason") or finish_reason
                self._choice(payload, chunk, choice, now)
            usage = dict(chunk["usage"]) if chunk.get("usage") else None
            measured = chunk.get("metrics") or (usage or {}).get("metrics") or {}
            return finish_reason, usage, measured.get("time_to_first_token_ms")
        except (ValueError, AttributeError, TypeError, KeyError) as problem:
            raise StreamError("malformed", payload.decode(errors="replace")) from problem

    def _choice(self, payload: bytes, chunk: Any, choice: Any, now: int) -> None:
        holder, keys = (choice, ("text",)) if "text" in choice else (choice.get("delta") or {}, _TEXT_KEYS)
        key = next((key for key in keys if holder.get(key)), None)
        if key is not None:
            self.content.append(now)
            if self._pieces is not None and key in ("content", "text"):
                self._pieces.append(json.dumps(holder[key])[1:-1].encode())
            worth = len(self.content) >= _WORTH_LEARNING or not self._shapes.after
            # an event that says more than its text is no model for others: what it says would be passed over in them
            plain = not choice.get("finish_reason") and not chunk.get("usage")
            if worth and plain and (self._pieces is None or key in ("content", "text")):
                self._learn(payload, chunk, holder, key)
        elif holder.get("tool_calls"):
            self.content.append(now)

    def _learn(self, payload: bytes, chunk: Any, holder: dict[str, Any], key: str) -> None:
        """Remember what stands around the text, if putting another text there gives the same chunk with that text."""
        name = b'"%s":' % key.encode()
        start = payload.find(name) + len(name)
        start = payload.find(b'"', start) + 1
        raw = json.dumps(holder[key], ensure_ascii=False)[1:-1].encode(errors="surrogatepass")
        if not payload.startswith(raw + b'"', start):
            return  # escaped in another way than ours: this event teaches nothing, the next one may
        before, after = payload[:start], payload[start + len(raw) :]
        holder[key] = _PROBE
        if json.loads(before + _PROBE.encode() + after) != chunk:
            return
        self._put_around(before, after)
        if key in ("content", "text") and self._opening and before.startswith(self._opening):
            self._shapes.between, self._shapes.after = before[len(self._opening) :], after

    def _put_around(self, before: bytes, after: bytes) -> None:
        self._before, self._after = before, after
        self._head, self._tail = b"data: " + before, after + b"\n\n"
        self._around = len(self._head) + len(self._tail)


def _parse(payload: bytes) -> Any:
    """`json.loads` for text that is one value and nothing else, without its detours. ValueError for anything else."""
    text = payload.decode().strip()
    value, end = _decode(text)
    return value if end == len(text) else json.loads(text)


def unescaped(answer: bytes) -> str:
    """The text that the inside of a JSON string stands for."""
    return str(json.loads(b'"' + answer + b'"'))


def _opening(payload: bytes) -> tuple[bytes, bytes]:
    """An event up to its id, without and with it; empty where its id is not one of the first things in it."""
    at = payload.find(b'"id":', 0, 40)
    start = payload.find(b'"', at + 5) + 1
    end = payload.find(b'"', start)
    if at < 0 or not start or end < 0 or b"\\" in payload[start:end]:
        return b"", b""
    return payload[:start], payload[:end]
