"""Statistics against known values."""

import random

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.stats import bootstrap_interval, mean, percentile, rate


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
