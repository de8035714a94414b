"""KL from lists of the likeliest tokens: exact when they are complete, never above the true value when they are not."""

import math

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.stages._divergence import kl_of_top, logprob_gap

weights = st.lists(st.floats(0.01, 1.0), min_size=6, max_size=6)


def distribution(values: list[float]) -> dict[int, float]:
    return {token: math.log(value / sum(values)) for token, value in enumerate(values)}


def top(full: dict[int, float], count: int) -> dict[int, float]:
    return dict(sorted(full.items(), key=lambda pair: -pair[1])[:count])


def kl(expected: dict[int, float], found: dict[int, float]) -> float:
    return sum(math.exp(expected[token]) * (expected[token] - found[token]) for token in expected)


@given(weights, weights)
def test_complete_lists_give_the_divergence_itself(left, right):
    expected, found = distribution(left), distribution(right)
    assert math.isclose(kl_of_top(expected, found), kl(expected, found), abs_tol=1e-8)


@given(weights, weights, st.integers(1, 5))
def test_shorter_lists_never_give_more(left, right, count):
    expected, found = distribution(left), distribution(right)
    assert kl_of_top(top(expected, count), top(found, count)) <= kl(expected, found) + 1e-8


def test_a_confident_token_that_the_other_does_not_list_counts_in_full():
    sure, spread = {1: math.log(0.98)}, {token: math.log(0.001) for token in range(2, 102)}
    assert kl_of_top(sure, spread) > 0.98 * math.log(0.98 / 0.001) - 0.1


def test_a_token_that_is_not_listed_counts_as_the_least_listed():
    assert logprob_gap(9, {9: -0.5, 8: -1.0}, {8: -0.2, 7: -3.0}) == 2.5
