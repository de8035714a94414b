"""Statistics against known values."""

import math
import random

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.stats import (
    GroupedPercentiles,
    bootstrap_interval,
    draws,
    holm,
    lag_correlation,
    mean,
    percentile,
    rank_sum_p,
    rate,
    share_difference_p,
    share_interval,
    student_p,
)


def test_percentile_is_linear_between_ranks():
    assert percentile([1, 2, 3, 4], 50) == 2.5
    assert percentile([1, 2, 3, 4], 0) == 1
    assert percentile([1, 2, 3, 4], 100) == 4
    assert percentile([7], 99) == 7


@given(values=st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=60), share=st.floats(0, 100))
def test_percentile_agrees_with_numpy(values, share):
    assert percentile(values, share) == pytest.approx(float(numpy.percentile(values, share)), rel=1e-9, abs=1e-6)


@pytest.mark.parametrize(("values", "share"), [([], 50), ([1.0], 101), ([1.0], -1)])
def test_percentile_refuses_what_it_cannot_answer(values, share):
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, share)


def test_rate_of_an_empty_span_is_zero():
    assert rate(10, 2) == 5
    assert rate(10, 0) == 0


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    draw = random.Random(1)
    hits = 0
    for seed in range(100):
        low, high = bootstrap_interval([draw.random() for _ in range(40)], mean, resamples=200, seed=seed)
        hits += low <= 0.5 <= high
    assert 85 <= hits <= 100


def test_the_interval_is_repeatable():
    values = [0, 1, 1, 0, 1]
    assert bootstrap_interval(values, mean, seed=3) == bootstrap_interval(values, mean, seed=3)
    assert bootstrap_interval([2, 2, 2], mean) == (2, 2)


def test_share_interval_knows_that_a_few_successes_prove_little():
    low, high = share_interval(20, 20)
    assert (low, high) == (pytest.approx(0.839, abs=0.001), 1.0)
    assert share_interval(0, 20) == (0.0, pytest.approx(0.161, abs=0.001))
    assert share_interval(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert share_interval(0, 0) == (0.0, 1.0)


def test_share_difference_is_fishers_test():
    assert share_difference_p(0, 1000, 1, 1000) == 1.0
    assert share_difference_p(0, 1000, 10, 1000) == pytest.approx(2 * math.comb(1000, 10) / math.comb(2000, 10))
    assert share_difference_p(3, 50, 3, 50) == 1.0


def test_rank_sum_of_separate_and_of_equal_samples():
    assert rank_sum_p(range(8), range(8, 16)) == pytest.approx(0.00078, rel=0.01)
    assert rank_sum_p([1, 1, 1, 1, 1], [1, 1, 1, 1, 1]) == 1.0
    assert rank_sum_p([1, 3, 5, 7, 9], [2, 4, 6, 8, 10]) > 0.5


def test_rank_sum_gives_few_false_alarms():
    draw = random.Random(5)
    alarms = sum(
        rank_sum_p([draw.random() for _ in range(10)], [draw.random() for _ in range(10)]) < 0.05 for _ in range(1000)
    )
    assert 25 <= alarms <= 70


def test_holm_multiplies_the_smallest_by_all_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_draws_are_whole_resamples_and_repeat_with_their_seed():
    drawn = numpy.concatenate(list(draws(50_000, 12, seed=3)))
    assert drawn.shape == (12, 50_000)
    assert (drawn.sum(axis=1) == 50_000).all()
    assert (drawn == numpy.concatenate(list(draws(50_000, 12, seed=3)))).all()
    assert len({tuple(row[:50]) for row in drawn}) == 12


@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=40),
    shares=st.lists(st.floats(0, 100), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
)
def test_percentiles_of_drawn_groups_are_those_of_the_values_written_out(sizes, shares, seed):
    values = numpy.random.default_rng(seed).lognormal(size=sum(sizes)).round(1)
    groups = numpy.repeat(numpy.arange(len(sizes)), sizes)
    times = numpy.concatenate(list(draws(len(sizes), 5, seed)))
    found = GroupedPercentiles(values, groups, shares).of(times)
    expected = [numpy.percentile(numpy.repeat(values, row[groups]), shares) for row in times]
    assert found == pytest.approx(numpy.array(expected))


def test_student_p_against_tabled_values():
    assert student_p(2.776, 4) == pytest.approx(0.05, rel=0.02)
    assert student_p(2.010, 49) == pytest.approx(0.05, rel=0.01)
    assert student_p(3.500, 49) == pytest.approx(0.001, rel=0.02)


def test_lag_correlation_of_alternating_of_slow_and_of_random_values():
    assert lag_correlation([1, -1] * 50) == pytest.approx(-0.99)
    assert lag_correlation([math.sin(i / 20) for i in range(500)]) > 0.9
    draw = random.Random(3)
    assert abs(lag_correlation([draw.random() for _ in range(2000)])) < 0.06
    assert lag_correlation([1, 1, 1]) == 0.0
