"""Times of arrivals: the rate that was asked for, as bunched as asked for, decided by the seed."""

import itertools
import random
from statistics import fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.loadgen import arrivals

RATE = 20.0
COUNT = 20_000


def gaps(times):
    return [after - before for before, after in itertools.pairwise([0.0, *times])]


def cv(times):
    between = gaps(times)
    return pstdev(between) / fmean(between)


def streams(seed):
    rng = random.Random(seed)
    return {
        "poisson": arrivals.poisson(RATE, rng),
        "even": arrivals.gamma(RATE, 0.3, rng),
        "bunched": arrivals.gamma(RATE, 2.0, rng),
        "bursts": arrivals.bursts(RATE, 2.0, 8.0, rng),
    }


def test_constant_arrivals_have_equal_gaps_from_the_start_on():
    assert arrivals.until(arrivals.constant(4.0), count=4) == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("kind", ["poisson", "even", "bunched", "bursts"])
def test_the_mean_rate_is_the_one_asked_for(kind):
    times = arrivals.until(streams(1)[kind], count=COUNT)
    assert COUNT / times[-1] == pytest.approx(RATE, rel=0.05)
    assert times == sorted(times)


@pytest.mark.parametrize(("kind", "wanted"), [("poisson", 1.0), ("even", 0.3), ("bunched", 2.0)])
def test_gaps_are_as_bunched_as_asked_for(kind, wanted):
    assert cv(arrivals.until(streams(2)[kind], count=COUNT)) == pytest.approx(wanted, rel=0.05)


def test_a_burst_is_followed_by_a_pause_and_busier_than_the_mean():
    times = arrivals.until(streams(3)["bursts"], duration_s=1000)
    assert {int(time % 10 // 2) for time in times} == {0}
    in_first = sum(1 for time in times if time % 10 < 1)
    assert in_first / 100 == pytest.approx(RATE * 5, rel=0.1)


@pytest.mark.parametrize("kind", ["poisson", "even", "bunched", "bursts"])
def test_the_seed_decides(kind):
    first, again, other = (arrivals.until(streams(seed)[kind], count=50) for seed in (4, 4, 5))
    assert first == again != other


@given(st.floats(0.1, 500), st.floats(0.1, 20), st.integers(0, 200))
def test_whichever_limit_comes_first_ends_them(rate, duration, count):
    times = arrivals.until(arrivals.poisson(rate, random.Random(1)), duration_s=duration, count=count)
    assert len(times) <= count
    assert all(time < duration for time in times)
    assert (
        len(times) == count
        or next(time for time in arrivals.poisson(rate, random.Random(1)) if time not in times) >= duration
    )
