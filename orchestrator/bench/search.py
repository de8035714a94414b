"""`sweep: auto`: which load to try next, given what the trials so far showed; pure.

    seen = []
    while isinstance(step := next_step(seen, slo), Trial):
        seen.append(...)  # measure it
    print(step.knee, step.max_rate)

Two questions, in this order, for one target and workload:

1. **The knee**: the concurrency beyond which throughput grows by less than a tenth per doubling. Closed loops at 1, 4,
   16 ... streams until a doubling brings less than that; then at the knee of the curve through the points so far, until
   it lies within `KNEE_TOLERANCE` of a concurrency that was tried.
2. **The highest rate that keeps the SLO** (open loop, only with an SLO). The largest closed loop that kept it says
   where to begin; growing steps until one rate is kept and one is broken; then bisection until they are within
   `TOLERANCE` of each other. A rate that breaks the SLO by little is measured again, and two of three decide, so that
   one hiccup does not cut the answer.

The state is the list of trials alone: a search that was interrupted goes on from the stored ones.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from orchestrator.bench.result import Slo

GROWTH = 1.10
"""Throughput gained per doubling of the concurrency, at the knee."""
KNEE_TOLERANCE = 1.10
_DOUBLE_TOLERANCE = 1.5
"""The same for twice the knee, whose throughput decides as well."""
TOLERANCE = 1.08
"""Ratio of the lowest broken rate to the highest kept one at which the search ends."""
CLOSE = 0.05
"""An SLO is broken by little when no more than this share of the requests is missing."""
MAX_TRIALS = 20
MAX_CONCURRENCY = 1024
_RAMP = 4
_RATE_STEP = 1.25
"""First step of the rate; the next ones are its 2nd, 4th and 8th power."""
_BEYOND_CLOSED_LOOP = 4.0
"""No rate is tried beyond this many times the most requests/s that a closed loop got."""
_BELOW_CLOSED_LOOP = 0.9
"""First rate over the one of the best closed loop: arrivals that do not wait come in bursts."""
_LEAST_SHARE = 0.02
"""Of the first rate; where even this is broken, the answer is that no rate keeps the SLO."""
_KNEE_SHARE = 0.6
"""Of the trials, for the knee."""


@dataclass(frozen=True)
class Trial:
    """A load to measure: a closed loop, or an open one."""

    concurrency: int | None = None
    rate: float | None = None
    repeat: int = 0
    """How often the same load has been measured before."""


@dataclass(frozen=True)
class Outcome:
    """What a trial showed; one that failed has rates of 0 and does not keep the SLO."""

    trial: Trial
    tokens_per_s: float
    requests_per_s: float
    goodput: float | None = None
    """Share of the requests that kept the SLO; None without an SLO."""
    keeps_slo: bool | None = None


@dataclass(frozen=True)
class Answer:
    """The end of a search."""

    knee: int | None
    knee_rate: float | None
    """Requests/s that the server served at the knee."""
    max_rate: float | None
    first_bad_rate: float | None
    trials: int
    note: str | None = None


def next_step(
    seen: Sequence[Outcome],
    slo: Slo | None,
    *,
    max_trials: int = MAX_TRIALS,
    max_concurrency: int = MAX_CONCURRENCY,
) -> Trial | Answer:
    """The next trial, or the answer; at most `max_trials` trials, whatever they show."""
    closed = {o.trial.concurrency: o for o in seen if o.trial.concurrency is not None}
    rates = [outcome for outcome in seen if outcome.trial.rate is not None]
    notes: list[str] = []
    if not seen:
        return Trial(concurrency=1)
    if not rates and len(seen) < (round(max_trials * _KNEE_SHARE) if slo else max_trials):
        concurrency = _next_concurrency(_throughputs(closed), max_concurrency)
        if concurrency is not None:
            return Trial(concurrency=concurrency)
    lowest, highest = None, None
    if slo and any(outcome.requests_per_s for outcome in closed.values()):
        trial, lowest, highest, note = _next_rate(rates, slo, *_rate_span(closed))
        if trial and len(seen) < max_trials:
            return trial
        notes += [f"ended after {max_trials} trials"] if trial else [note] if note else []
    return _answer(_throughputs(closed), closed, lowest, highest, len(seen), notes)


def knee(throughput: Mapping[int, float]) -> float | None:
    """The concurrency beyond which the curve through these points gains less than `GROWTH` per doubling.

    The curve is linear between vertices in log throughput over log concurrency. None while every doubling up to the
    last point gains more.
    """
    curve = _curve(throughput)
    if len(curve) < 2:
        return None
    first, last = curve[0][0], curve[-1][0] - 1
    marks = sorted(x for vertex, _ in curve for x in (vertex, vertex - 1) if first <= x <= last)
    before: tuple[float, float] | None = None
    for x in marks:
        gain = _at(curve, x + 1) - _at(curve, x) - math.log2(GROWTH)
        if gain < 0:
            return float(2 ** (x if before is None else before[0] + (x - before[0]) * before[1] / (before[1] - gain)))
        before = (x, gain)
    return None


def _curve(throughput: Mapping[int, float]) -> list[tuple[float, float]]:
    """The points in log2, and between two of them one vertex where a concave curve may bend.

    Such a curve runs above the chord and below the continuations of its neighbouring chords; the vertex lies half-way.
    """
    points = [(math.log2(concurrency), math.log2(tokens)) for concurrency, tokens in sorted(throughput.items())]
    slopes = [(y1 - y0) / (x1 - x0) for (x0, y0), (x1, y1) in pairwise(points)]
    found: list[tuple[float, float]] = []
    for number, (x, y) in enumerate(points):
        found.append((x, y))
        if number + 1 < len(slopes):
            before, after = slopes[number - 1] if number else 1.0, slopes[number + 1]
            found += _bend((x, y), points[number + 1], before, after)
    return found


def _bend(
    left: tuple[float, float], right: tuple[float, float], before: float, after: float
) -> list[tuple[float, float]]:
    (x0, y0), (x1, y1) = left, right
    if before <= after:
        return []
    x = (y1 - y0 + before * x0 - after * x1) / (before - after)
    if not x0 < x < x1:
        return []
    chord = y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return [(x, max(chord, (chord + y0 + before * (x - x0)) / 2))]


def _at(curve: Sequence[tuple[float, float]], x: float) -> float:
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return curve[-1][1]


def _throughputs(closed: Mapping[int, Outcome]) -> dict[int, float]:
    """Tokens/s by concurrency; a trial that failed brings no more than the one below it."""
    found: dict[int, float] = {}
    for concurrency, outcome in sorted(closed.items()):
        tokens = outcome.tokens_per_s or max(found.values(), default=0.0)
        if tokens:
            found[concurrency] = tokens
    return found


def _next_concurrency(throughput: Mapping[int, float], most: int) -> int | None:
    if not throughput:
        return None
    last, bend = max(throughput), knee(throughput)
    if bend is None:
        return min(_RAMP * last, most) if last < most else None
    for place, tolerance in ((bend, KNEE_TOLERANCE), (2 * bend, _DOUBLE_TOLERANCE)):
        near = min(max(place / tried, tried / place) for tried in throughput)
        wanted = min(max(1, round(place)), most)
        if near > tolerance and wanted not in throughput:
            return wanted
    return None


def _rate_span(closed: Mapping[int, Outcome]) -> tuple[float, float]:
    """(where to begin, where to give up)."""
    kept = [outcome.requests_per_s for outcome in closed.values() if outcome.keeps_slo]
    served = [outcome.requests_per_s for outcome in closed.values() if outcome.requests_per_s]
    first = _BELOW_CLOSED_LOOP * max(kept) if any(kept) else min(served) / 2
    return first, _BEYOND_CLOSED_LOOP * max(served)


def _next_rate(
    outcomes: Sequence[Outcome], slo: Slo, first: float, most: float
) -> tuple[Trial | None, float | None, float | None, str | None]:
    """(what to measure next, highest rate kept, lowest rate broken, why there is no better answer)."""
    votes: dict[float, list[Outcome]] = {}
    for outcome in outcomes:
        votes.setdefault(outcome.trial.rate or 0.0, []).append(outcome)
    verdicts = {rate: _verdict(found, slo) for rate, found in votes.items()}
    broken = min((rate for rate, keeps in verdicts.items() if keeps is False), default=None)
    kept = max((rate for rate, keeps in verdicts.items() if keeps and (broken is None or rate < broken)), default=None)
    open_vote = next((rate for rate, keeps in verdicts.items() if keeps is None), None)
    if open_vote is not None:
        return Trial(rate=open_vote, repeat=len(votes[open_vote])), kept, broken, None
    if kept and broken:
        between = None if broken / kept <= TOLERANCE else Trial(rate=_round(math.sqrt(kept * broken)))
        return between, kept, broken, None
    if kept is None and broken is None:
        return Trial(rate=_round(first)), None, None, None
    step = _RATE_STEP ** min(2 ** (len(votes) - 1), 8)
    if kept:
        return (Trial(rate=_round(kept * step)) if kept < most else None), kept, None, None
    assert broken is not None, "one of the two is known here"
    if broken < _LEAST_SHARE * first:
        return None, None, broken, f"no rate keeps the SLO, not even {broken:g} requests/s"
    return Trial(rate=_round(broken / step)), None, broken, None


def _verdict(votes: Sequence[Outcome], slo: Slo) -> bool | None:
    """Whether a rate keeps the SLO; None: measure it again."""
    yes = sum(bool(outcome.keeps_slo) for outcome in votes)
    if len(votes) == 1:
        missing = slo.share - (votes[0].goodput or 0.0)
        return True if yes else None if missing <= CLOSE else False
    if len(votes) == 2:
        return False if not yes else None
    return 2 * yes > len(votes)


def _round(rate: float) -> float:
    """Three digits: a rate is a name, too."""
    return float(f"{rate:.3g}")


def _answer(
    throughput: Mapping[int, float],
    closed: Mapping[int, Outcome],
    kept: float | None,
    broken: float | None,
    trials: int,
    notes: Sequence[str],
) -> Answer:
    bend = knee(throughput)
    found = max(1, round(bend)) if bend is not None else None
    if not throughput:
        notes = ["the first trial failed, see its cell"]
    elif found is None:
        notes = [f"throughput still grows at {max(throughput)} streams", *notes]
    if kept and broken is None:
        notes = [*notes, "no rate that was tried broke the SLO"]
    rate = _served(closed, found) if found else None
    return Answer(found, rate, kept, broken, trials, "; ".join(notes) or None)


def _served(closed: Mapping[int, Outcome], concurrency: int) -> float:
    """Requests/s at a concurrency: of the nearest trial that did not fail."""
    good = [tried for tried, outcome in closed.items() if outcome.requests_per_s]
    return closed[min(good, key=lambda tried: abs(math.log(tried / concurrency)))].requests_per_s
