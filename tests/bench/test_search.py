"""`sweep: auto` against simulated servers: the right answer, in few trials, whatever the noise."""

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.bench.result import Slo
from orchestrator.bench.search import GROWTH, MAX_TRIALS, TOLERANCE, Answer, Outcome, Trial, knee, next_step

TOKENS = 100


@dataclass
class Server:
    """A queue before `slots` places; a request that is served beside n others takes `alone + n x crowd` seconds."""

    slots: int = 32
    alone: float = 1.0
    crowd: float = 0.03
    noise: float = 0.0
    spread: float = 0.2
    """Of the service times."""

    def throughput(self, concurrency: int) -> float:
        busy = min(concurrency, self.slots)
        return busy / (self.alone + busy * self.crowd)

    def closed(self, concurrency: int, draw: random.Random, limit: float) -> tuple[float, float]:
        """(requests/s, share of the requests whose wait was within the limit)."""
        rate = self.throughput(concurrency) * math.exp(draw.gauss(0, self.noise))
        wait = max(0.0, concurrency / rate - self.alone - self.slots * self.crowd)
        return rate, 1.0 if wait <= limit else 0.0

    def open(self, rate: float, draw: random.Random, limit: float, seconds: float = 60) -> tuple[float, float]:
        """Poisson arrivals, first come first served."""
        moment, ends, kept, sent = 0.0, list[float](), 0, 0
        while moment < seconds:
            moment += draw.expovariate(rate)
            while ends and ends[0] <= moment:
                heapq.heappop(ends)
            begin = moment if len(ends) < self.slots else sorted(ends)[len(ends) - self.slots]
            busy = min(len(ends) + 1, self.slots)
            heapq.heappush(
                ends, begin + (self.alone + busy * self.crowd) * draw.uniform(1 - self.spread, 1 + self.spread)
            )
            sent, kept = sent + 1, kept + (begin - moment <= limit)
        return min(rate, self.throughput(self.slots)), kept / sent


def search(server: Server, slo: Slo | None, seed: int = 0, **limits: int) -> tuple[Answer, list[Outcome]]:
    draw, seen = random.Random(seed), list[Outcome]()
    while isinstance(step := next_step(seen, slo, **limits), Trial):
        limit = (slo.ttft or 0.0) if slo else 0.0
        if step.concurrency is not None:
            rate, share = server.closed(step.concurrency, draw, limit)
        else:
            assert step.rate is not None
            rate, share = server.open(step.rate, draw, limit)
        keeps = share >= slo.share if slo else None
        seen.append(Outcome(step, TOKENS * rate, rate, share if slo else None, keeps))
    return step, seen


def true_knee(throughput: Callable[[int], float]) -> int:
    return next(c for c in range(1, 5000) if throughput(2 * c) < GROWTH * throughput(c))


def true_rate(server: Server, slo: Slo) -> float:
    """By bisection over long runs without noise from their length."""
    low, high = 0.01, 2 * server.throughput(server.slots)
    while high / low > 1.01:
        rate = math.sqrt(low * high)
        shares = [server.open(rate, random.Random(seed), slo.ttft or 0.0)[1] for seed in range(20)]
        low, high = (rate, high) if sum(shares) / len(shares) >= slo.share else (low, rate)
    return low


SERVERS = [
    Server(slots=48, crowd=0.0),
    Server(slots=20, crowd=0.0),
    Server(slots=256, crowd=0.125),
    Server(slots=8, crowd=0.02),
    Server(slots=100, crowd=0.01),
    Server(slots=1, crowd=0.0),
]


@pytest.mark.parametrize("server", SERVERS, ids=str)
def test_the_knee_is_found_within_a_tenth_and_in_at_most_nine_trials(server: Server) -> None:
    answer, seen = search(server, None)
    truth = true_knee(server.throughput)
    assert answer.knee is not None
    assert truth / 1.12 <= answer.knee <= truth * 1.12 or abs(answer.knee - truth) <= 1
    assert answer.trials == len(seen) <= 9
    assert answer.max_rate is None


@pytest.mark.parametrize("server", SERVERS, ids=str)
def test_noise_of_three_percent_moves_the_knee_little(server: Server) -> None:
    """A smooth curve has a flat knee: what counts is what a doubling there still brings."""
    truth, noisy = true_knee(server.throughput), replace(server, noise=0.03)
    found = [search(noisy, None, seed) for seed in range(41)]
    knees = sorted(answer.knee or 0 for answer, _ in found)
    assert truth / 1.15 <= knees[20] <= truth * 1.15 or abs(knees[20] - truth) <= 1
    gains = sorted(server.throughput(2 * at) / server.throughput(at) for at in knees)
    assert gains[36] < GROWTH + 0.08, "nine of ten searches end where a doubling brings little"
    trials = sorted(len(seen) for _, seen in found)
    assert (trials[20] <= 9, trials[-1] <= 12) == (True, True), trials


@pytest.mark.parametrize("limit", [0.05, 1.0], ids="ttft {}s".format)
@pytest.mark.parametrize("server", SERVERS[:-1], ids=str)
def test_the_highest_rate_that_keeps_the_slo_is_found_from_noisy_trials(server: Server, limit: float) -> None:
    slo = Slo(ttft=limit, share=0.95)
    truth, noisy = true_rate(server, slo), replace(server, noise=0.02)
    found = [search(noisy, slo, seed) for seed in range(9)]
    rates = sorted(answer.max_rate or 0.0 for answer, _ in found)
    assert truth / 1.12 <= rates[4] <= truth * 1.12
    assert rates[0] > truth / 1.25
    assert rates[-1] < truth * 1.25
    for answer, seen in found:
        assert answer.trials == len(seen) <= MAX_TRIALS
        assert answer.first_bad_rate is not None
        assert answer.max_rate is not None
        assert 1 < answer.first_bad_rate / answer.max_rate <= TOLERANCE
        rates_tried = {outcome.trial.rate for outcome in seen if outcome.trial.rate}
        assert {answer.max_rate, answer.first_bad_rate} <= rates_tried, "only what was measured is an answer"


def test_an_slo_that_a_single_stream_breaks_has_no_rate() -> None:
    found = _continue([], lambda trial: Outcome(trial, TOKENS * min(trial.concurrency or 1, 9), 1.0, 0.0, False))
    assert found.max_rate is None
    assert "no rate keeps the SLO" in str(found.note)
    assert found.trials <= MAX_TRIALS


def test_an_slo_that_nothing_breaks_says_so() -> None:
    found = _continue([], lambda trial: Outcome(trial, TOKENS, trial.rate or 10.0, 1.0, True))
    assert found.max_rate is not None
    assert found.first_bad_rate is None
    assert "no rate that was tried broke the SLO" in str(found.note)
    assert found.trials < MAX_TRIALS


def test_one_hiccup_does_not_cut_the_answer() -> None:
    """The first rate is broken by a little once; without a second look the answer would be far below the truth."""
    hiccups = iter([True])

    def measure(trial: Trial) -> Outcome:
        if trial.concurrency:
            rate = float(min(trial.concurrency, 10))
            return Outcome(trial, TOKENS * rate, rate, 1.0, trial.concurrency <= 10)
        keeps = (trial.rate or 0) <= 10 and not next(hiccups, False)
        return Outcome(trial, TOKENS, 1.0, 1.0 if keeps else 0.97, keeps)

    found = _continue([], measure, share=0.99)
    assert found.max_rate is not None
    assert 10 / TOLERANCE <= found.max_rate <= 10


def test_a_server_that_fails_at_once_ends_the_search_at_once() -> None:
    found = _continue([], lambda trial: Outcome(trial, 0.0, 0.0, 0.0, False))
    assert (found.knee, found.max_rate, found.trials) == (None, None, 1)
    assert "first trial failed" in str(found.note)


def test_a_server_that_dies_under_many_streams_has_a_knee_below_them() -> None:
    def measure(trial: Trial) -> Outcome:
        rate = float(min(trial.concurrency or 0, 30)) if (trial.concurrency or 0) <= 100 else 0.0
        return Outcome(trial, TOKENS * rate, rate)

    found = _continue([], measure, share=None)
    assert found.knee is not None
    assert 24 <= found.knee <= 30


def test_a_server_that_never_saturates_is_said_to_still_grow() -> None:
    found = _continue([], lambda trial: Outcome(trial, float(trial.concurrency or 0), 1.0), share=None)
    assert found.knee is None
    assert found.note == "throughput still grows at 1024 streams"
    assert found.trials == 6


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e4), st.floats(0, 1), st.booleans()), min_size=40, max_size=40),
    st.booleans(),
    st.integers(1, 30),
)
def test_it_ends_within_its_trials_whatever_the_server_shows(
    shown: list[tuple[float, float, float, bool]], with_slo: bool, most: int
) -> None:
    slo, seen = Slo(ttft=1.0) if with_slo else None, list[Outcome]()
    while isinstance(step := next_step(seen, slo, max_trials=most), Trial):
        tokens, rate, goodput, keeps = shown[len(seen)]
        assert (step.concurrency is None) != (step.rate is None)
        assert (step.concurrency or 1) <= 1024
        assert step.rate is None or step.rate > 0
        done = {(outcome.trial.concurrency, outcome.trial.rate, outcome.trial.repeat) for outcome in seen}
        assert (step.concurrency, step.rate, step.repeat) not in done, "nothing is measured twice without need"
        seen.append(Outcome(step, tokens, rate, goodput, keeps))
    assert step.trials == len(seen) <= most


@given(st.dictionaries(st.integers(1, 2000), st.floats(1e-3, 1e9), max_size=12))
def test_a_knee_lies_among_the_concurrencies_that_were_tried(throughput: dict[int, float]) -> None:
    found = knee(throughput)
    assert found is None or min(throughput) <= found * 1.000001 <= max(throughput) * 1.000001


def _continue(seen: list[Outcome], measure: Callable[[Trial], Outcome], share: float | None = 0.95) -> Answer:
    slo = Slo(ttft=1.0, share=share) if share else None
    while isinstance(step := next_step(seen, slo), Trial):
        seen.append(measure(step))
    return step
