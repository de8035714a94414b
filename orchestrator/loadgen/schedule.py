"""Which request is sent when: closed loop, open loop, sessions, warm-up; pure, driven by the time it is told (ns).

schedule = Schedule(read_sessions(...), load, start=now)
while not schedule.finished:
    if (item := schedule.due(now)): ...         # send it
    ...                                         # its answer is complete:
    schedule.ended(item, now, answer)
"""

import heapq
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from orchestrator.loadgen.load import Load
from orchestrator.loadgen.requests import NONCE, Request, answer_mark

SECOND = 1_000_000_000
INDEX_DIGITS = 8


@dataclass(slots=True)
class Item:
    """One request with its place in the measurement."""

    index: int
    request: Request
    intended: int
    """When it was to be sent."""
    warmup: bool
    body: bytes
    """With its nonce and the earlier answers of its session."""
    nonce: bytes
    rest: "list[tuple[int, Request]]"
    """The later turns of its session."""
    answers: list[bytes]
    """Of the earlier turns, as the insides of JSON strings."""


Numbered = Sequence[tuple[int, Request]]
"""A session: its turns with their indexes; a request without a session is a session of one turn."""


class Schedule:
    """The share of one worker in a load."""

    def __init__(
        self, sessions: Iterator[Numbered], load: Load, *, start: int, run: bytes, streams: int | None
    ) -> None:
        """`run` is the part of every nonce that is this measurement's; `streams` is this worker's concurrency."""
        self._sessions, self._load, self._start, self._run = sessions, load, start, run
        self._streams = streams
        self._busy = 0
        """Sessions that have begun and not ended."""
        self._later: list[tuple[int, int, Item]] = []
        """Turns whose time has not come: (time, index, item)."""
        self._next: Numbered | None = None
        self._warm_until = start + int(load.warmup_s * SECOND)
        duration_ns = sys.maxsize - self._warm_until if load.duration_s is None else int(load.duration_s * SECOND)
        self._last_arrival = self._warm_until + duration_ns
        """An open loop ends by its own arrivals, so that all workers end at the same one."""
        self._stop_at: int | None = None
        self.measuring_since: int | None = None
        """Intended time of the first request that is not warm-up."""
        self.idle_since: int | None = None
        """When a stream first found nothing to send any more, or the last arrival of an open loop."""
        self._advance(start)

    @property
    def finished(self) -> bool:
        """Whether nothing is in flight and nothing will be sent."""
        return self._next is None and self._busy == 0

    @property
    def sending(self) -> bool:
        """Whether something may still be sent."""
        return self._next is not None or bool(self._later)

    def next_time(self) -> int | None:
        """When something will be due, if nothing ends before; None when only an end can make something due."""
        times = [self._later[0][0]] if self._later else []
        if self._next is not None and self._has_stream():
            times.append(self._arrival(self._next))
        return min(times, default=None)

    def due(self, now: int) -> Item | None:
        """The next request to send at `now`."""
        if self._later and self._later[0][0] <= now:
            return heapq.heappop(self._later)[2]
        if self._next is None or not self._has_stream() or self._arrival(self._next) > now:
            return None
        if self._stop_at is not None and now >= self._stop_at:
            self.stop(now)
            return None
        session = self._next
        item = self._item(session, now if session[0][1].at is None else self._arrival(session))
        self._advance(now)
        self._busy += 1
        if self._next is None and self._streams is not None and self._busy < self._streams:
            # streams that ended together, before this one was sent, are left with nothing
            self.idle_since = self.idle_since or now
        return item

    def ended(self, item: Item, now: int, answer: bytes | None) -> list[Item]:
        """The answer to `item` is complete at `now`, or failed (None); gives the turns that will never be sent."""
        if item.rest and answer is not None and not self._past_end(now):
            index, request = item.rest[0]
            answers = [*item.answers, answer]
            body = _with_answers(request.body.replace(NONCE, item.nonce), answers)
            at = now + int(request.think_s * SECOND)
            later = Item(index, request, at, item.warmup, body, item.nonce, item.rest[1:], answers)
            heapq.heappush(self._later, (at, index, later))
            return []
        self._busy -= 1
        if self._next is None and self.idle_since is None:
            self.idle_since = now
        if answer is not None:
            return []
        return [Item(i, r, now, item.warmup, b"", item.nonce, [], []) for i, r in item.rest]

    def stop(self, now: int) -> None:
        """Send nothing more."""
        self._next = None
        self._busy -= len(self._later)
        self._later = []
        self.idle_since = self.idle_since or now

    def _has_stream(self) -> bool:
        return self._streams is None or self._busy < self._streams

    def _arrival(self, session: Numbered) -> int:
        """When an open loop wants it sent; in a closed loop, at once."""
        return self._start + int((session[0][1].at or 0.0) * SECOND)

    def _past_end(self, now: int) -> bool:
        return self._stop_at is not None and now >= self._stop_at

    def _item(self, session: Numbered, intended: int) -> Item:
        (index, request), *rest = session
        warmup = index < self._load.warmup_requests or intended < self._warm_until
        if not warmup and self.measuring_since is None:
            self.measuring_since = intended
            if self._load.duration_s is not None and request.at is None:
                self._stop_at = intended + int(self._load.duration_s * SECOND)
        nonce = self._run + b"%0*d" % (INDEX_DIGITS, index % 10**INDEX_DIGITS)
        return Item(index, request, intended, warmup, request.body.replace(NONCE, nonce), nonce, rest, [])

    def _advance(self, now: int) -> None:
        before, self._next = self._next, next(self._sessions, None)
        if self._next is not None and self._arrival(self._next) >= self._last_arrival:
            self._next = None
        if self._next is None and before is not None and before[0][1].at is not None:
            self.idle_since = now


def sessions(requests: Callable[[], Iterator[Request]], load: Load, *, worker: int) -> Iterator[Numbered]:
    """The sessions of one worker, numbered over all workers; a closed loop goes round until its limit.

    Each session goes to one worker: session number modulo the number of workers. `requests` gives them from the start.
    """
    number = index = 0
    limit = None if load.num_requests is None else load.warmup_requests + load.num_requests
    while True:
        found = False
        for session in _grouped(requests()):
            found = True
            if session[0].at is None and limit is not None and index >= limit:
                return
            if number % load.workers == worker:
                yield list(enumerate(session, index))
            number, index = number + 1, index + len(session)
        open_loop = found and session[0].at is not None
        if not found or open_loop or (load.num_requests is None and load.duration_s is None):
            return


def _grouped(requests: Iterator[Request]) -> Iterator[list[Request]]:
    """Turns of one session together; a workload writes them one after another."""
    session: list[Request] = []
    for request in requests:
        if session and (request.session < 0 or request.session != session[0].session):
            yield session
            session = []
        session.append(request)
    if session:
        yield session


def _with_answers(body: bytes, answers: Sequence[bytes]) -> bytes:
    for turn, answer in enumerate(answers):
        body = body.replace(answer_mark(turn), answer)
    return body
