"""Percentiles, rates and bootstrap intervals over plain numbers; pure, and without numpy so that it loads at once."""

import math
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def percentile(values: Sequence[float], share: float) -> float:
    """The `share`-th percentile (0..100), linear between the two closest ranks.

    This is Hyndman and Fan's type 7, the default of numpy.
    With n sorted values the rank is (n - 1) * share / 100, counted from zero. ValueError without values.
    """
    if not values or not 0 <= share <= 100:
        raise ValueError(f"a percentile needs at least one value and a share of 0..100, got {len(values)} and {share}")
    ordered = sorted(values)
    rank = (len(ordered) - 1) * share / 100
    below, above = ordered[math.floor(rank)], ordered[math.ceil(rank)]
    return below if above == below else below + (above - below) * (rank - math.floor(rank))


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean; ValueError without values."""
    if not values:
        raise ValueError("the mean of no values is not defined")
    return math.fsum(values) / len(values)


def rate(amount: float, seconds: float) -> float:
    """Amount per second; 0 for an empty span, where nothing was measured."""
    return amount / seconds if seconds > 0 else 0.0


def bootstrap_interval(
    values: Sequence[T],
    statistic: Callable[[Sequence[T]], float],
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile bootstrap interval (Efron 1979) of `statistic` over independent `values`.

    Draws `resamples` samples of the same size with replacement; the same seed gives the same interval.
    The interval of values that are all equal is a point: the bootstrap cannot see what never occurred.
    """
    draw = random.Random(seed)
    estimates = [statistic(draw.choices(values, k=len(values))) for _ in range(resamples)]
    tail = 100 * (1 - level) / 2
    return percentile(estimates, tail), percentile(estimates, 100 - tail)
