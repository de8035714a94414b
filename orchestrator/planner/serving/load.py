"""A target under load: how many sequences run together, how long a step then takes, how long a request waits.

Three loads: a fixed number of requests at any moment (`closed`), requests that arrive at random at a given rate
(`arriving`), and a number of requests that are all there at once (`burst`). In each, every request has the same
lengths, prompts are read in chunks between decode steps (continuous batching), and nothing is cached between requests.
"""

import math
from typing import NamedTuple

from orchestrator.planner.serving.shape import Shape
from orchestrator.planner.serving.step import Efficiency, step


class Target(NamedTuple):
    """One copy of a model with the engine's limits."""

    shape: Shape
    eff: Efficiency
    capacity: int
    """Sequences of this load's lengths that the cache holds."""
    most_sequences: int
    """In one step."""
    most_tokens: int
    """In one step."""
    microbatches: int = 1
    """Groups that the running sequences are split into, one for each pipeline stage."""
    draft: Shape | None = None
    """A speculative draft model."""
    draft_tokens: int = 0
    """Tokens that it proposes each time."""
    accepted: float = 1.0
    """Tokens that a step yields for each sequence on average."""


class Lengths(NamedTuple):
    """Of every request."""

    prompt: int
    answer: int
    longest: float = 1.0
    """The longest answer of a run, in mean answers: a run with an end waits for it."""

    @property
    def mean(self) -> float:
        """Tokens that a decoding sequence has on average."""
        return self.prompt + self.answer / 2


class Point(NamedTuple):
    """What one copy does under a load."""

    running: float
    """Sequences at once."""
    ttft_s: float
    """Mean, with the wait for a place."""
    tpot_s: float
    """Mean time between the tokens of an answer."""
    requests_per_s: float
    """Finished."""


def steps(target: Target, decoding: float, context: float, prompt: float = 0.0, before: float = 0.0) -> float:
    """Seconds until each of the decoding sequences has its next token, all stages passed."""
    shape, groups = target.shape, target.microbatches
    share = decoding / groups
    proposed = target.draft_tokens * share
    one = step(shape, target.eff, share, context, prompt / groups + proposed, before if prompt else 0.0).total
    if target.draft:
        one += target.draft_tokens * step(target.draft, target.eff, share, context).total
    return one * shape.stages


def most_running(target: Target, lengths: Lengths) -> float:
    """Sequences that can run together for long: by cache, by the engine's batch, by its tokens of one step.

    In a steady state, each sequence brings its share of new prompts: prompt / answer tokens to read for each it writes.
    """
    by_tokens = target.most_tokens * target.microbatches / (1 + lengths.prompt / lengths.answer)
    return max(1.0, min(target.capacity, target.most_sequences * target.microbatches, by_tokens))


def closed(target: Target, lengths: Lengths, concurrency: float) -> Point:
    """As many requests at any moment as `concurrency`; those that find no place wait."""
    running = min(concurrency, most_running(target, lengths))
    reading, tpot = _reading(target, lengths, running), _tpot(target, lengths, running)
    service = reading + (lengths.answer - 1) * tpot
    rate = running / (service + target.eff.request_s)
    waiting = (concurrency - running) / rate
    alone = tpot / 2 if running > 1 else 0.0  # a request arrives in the middle of a step
    return Point(running, waiting + reading + alone + target.eff.request_s, tpot, rate)


def arriving(target: Target, lengths: Lengths, rate: float, requests: int | None = None) -> Point:
    """Poisson arrivals; with a number of requests, the rate includes the time until the last has its answer."""
    if math.isinf(rate) and requests is not None:
        return burst(target, lengths, requests)
    most = closed(target, lengths, most_running(target, lengths))
    if rate >= most.requests_per_s and requests is None:  # the queue grows without end
        return most._replace(ttft_s=math.inf)
    served = min(rate, most.requests_per_s)
    running = _balance(target, lengths, served)
    if requests is not None:  # a short run ends before so many have come together
        running *= 1 - math.exp(-requests / rate / (running / served))
    found = closed(target, lengths, running)
    ttft = found.ttft_s + _behind(target, found, served)
    if requests is None:
        return Point(running, ttft, found.tpot_s, rate)
    last = ttft + lengths.answer * steps(target, running / 2, lengths.mean) / target.accepted
    last += _straggler(target, lengths, running)
    waiting = requests / 2 * (1 / served - 1 / rate)
    return Point(running, ttft + waiting, found.tpot_s, requests / (requests / served + last))


def burst(target: Target, lengths: Lengths, requests: int, concurrency: float = math.inf) -> Point:
    """All requests are there at once, `concurrency` of them are sent; the rate is over the whole time.

    A steady state in the middle; at its ends the places are filled, and the last answers written.
    """
    places = max(1, min(target.capacity, target.most_sequences * target.microbatches))
    held = min(requests, concurrency, places)
    ends = _wave(target, lengths, held)
    if requests <= held:
        return ends
    steady = closed(target, lengths, min(held, most_running(target, lengths)))
    seconds = (requests - held) / steady.requests_per_s + held / ends.requests_per_s
    waiting = (min(requests, concurrency) - held) / steady.requests_per_s
    later = waiting / 2 + steady.ttft_s if math.isinf(concurrency) else waiting + steady.ttft_s
    first = held / requests
    ttft = first * ends.ttft_s + (1 - first) * later
    return Point(steady.running, ttft, steady.tpot_s, requests / seconds)


def _wave(target: Target, lengths: Lengths, running: float) -> Point:
    """So many requests start and end together: their prompts are read in full steps, then all decode."""
    chunk = min(float(target.most_tokens), running * lengths.prompt)
    count = running * lengths.prompt / chunk
    reading = steps(target, running / 2, lengths.prompt, chunk, lengths.prompt / 2)
    writing = steps(target, running, lengths.mean) / target.accepted
    answer = lengths.answer - 1
    during = count / 2 if answer >= count else answer * (1 - answer / (2 * count))  # tokens written while others read
    tpot = (during * reading + (answer - during) * writing) / max(answer, 1)
    seconds = count * reading + answer * writing + _straggler(target, lengths, running) + target.eff.request_s
    return Point(running, (count + 1) / 2 * reading + target.eff.request_s, tpot, running / seconds)


def _straggler(target: Target, lengths: Lengths, running: float) -> float:
    """Seconds for which the longest answer goes on when the mean one has ended and most others have."""
    return (lengths.longest - 1) * lengths.answer * steps(target, running / 4, lengths.mean) / target.accepted


def _reading(target: Target, lengths: Lengths, running: float) -> float:
    """Seconds to read one prompt while the others decode and bring prompts of their own."""
    chunk = _chunk(target, lengths, running)
    others = max(0.0, running - 1) / lengths.answer * lengths.prompt
    one = steps(target, max(0.0, running - 1), lengths.mean, chunk + others, lengths.prompt / 2)
    return lengths.prompt / chunk * one


def _tpot(target: Target, lengths: Lengths, running: float) -> float:
    """Mean step of a sequence that decodes, when some steps also read the prompts of others."""
    arrivals = max(0.0, running - 1) / lengths.answer
    chunk = _chunk(target, lengths, running)
    share = min(1.0, arrivals * lengths.prompt / chunk)
    plain = steps(target, running, lengths.mean)
    if share == 0:
        return plain / target.accepted
    mixed = steps(target, running, lengths.mean, arrivals * lengths.prompt / share, lengths.prompt / 2)
    return ((1 - share) * plain + share * mixed) / target.accepted


def _chunk(target: Target, lengths: Lengths, running: float) -> float:
    """Tokens of a prompt that fit into one step beside the sequences that decode."""
    return max(1.0, min(lengths.prompt, target.most_tokens - running / target.microbatches))


def _balance(target: Target, lengths: Lengths, rate: float) -> float:
    """Sequences that run on average, by Little's law: the largest fixed point of rate x time, by bisection."""
    low, high = 0.0, most_running(target, lengths)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if closed(target, lengths, max(middle, 1e-3)).requests_per_s < rate else (low, middle)
        )
    return high


def _behind(target: Target, found: Point, rate: float) -> float:
    """Mean wait of a prompt for those that are read before it, as in an M/D/1 queue."""
    half = found.tpot_s / 2 if found.running > 1 else 0.0
    reading = max(0.0, found.ttft_s - target.eff.request_s - half)
    busy = min(0.95, rate * reading)
    return reading * busy / (2 * (1 - busy))
