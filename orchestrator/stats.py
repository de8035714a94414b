"""Percentiles, rates, tests and bootstrap intervals over plain numbers; pure.

It loads at once: numpy is imported only where many values are resampled.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, pairwise
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

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


def share_interval(count: int, total: int, *, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share, 95 % by default; (0, 1) of nothing.

    Unlike the bootstrap it knows that 20 of 20 does not prove 100 %.
    """
    if total == 0:
        return 0.0, 1.0
    share, weight = count / total, z * z / total
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / total + weight / 4 / total)
    return (0.0 if count == 0 else middle - half), (1.0 if count == total else middle + half)


def two_sided_p(z: float) -> float:
    """Chance of a standard normal value at least this far from 0."""
    return math.erfc(abs(z) / math.sqrt(2))


def student_p(t: float, freedom: int) -> float:
    """Chance of Student's t at least this far from 0; Wallace's approximation (1959), good to 1 % from freedom 5 on."""
    z = math.sqrt(freedom * math.log1p(t * t / freedom)) * (8 * freedom + 1) / (8 * freedom + 3)
    return two_sided_p(z)


def lag_correlation(values: Sequence[float]) -> float:
    """Correlation of each value with the next one; 0 for fewer than three values or equal ones."""
    if len(values) < 3:
        return 0.0
    middle = mean(values)
    around = [value - middle for value in values]
    total = math.fsum(value * value for value in around)
    return math.fsum(a * b for a, b in pairwise(around)) / total if total > 0 else 0.0


def share_difference_p(count_a: int, total_a: int, count_b: int, total_b: int) -> float:
    """P-value of two shares being the same: Fisher's exact test, two-sided by doubling the smaller tail."""
    successes, total = count_a + count_b, total_a + total_b
    ways = [_log_choose(total_b, k) + _log_choose(total_a, successes - k) for k in range(successes + 1)]
    everything = _log_choose(total, successes)
    chances = [math.exp(way - everything) for way in ways]
    return min(1.0, 2 * min(math.fsum(chances[: count_b + 1]), math.fsum(chances[count_b:])))


def _log_choose(n: int, k: int) -> float:
    if not 0 <= k <= n:
        return -math.inf
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def rank_sum_p(a: Sequence[float], b: Sequence[float]) -> float:
    """P-value of the Mann-Whitney test, two-sided: whether values of one sample tend to be larger than the other's.

    Normal approximation with the correction for ties; good from five values on each side.
    """
    pooled = sorted(chain(a, b))
    first = {value: index for index, value in reversed(list(enumerate(pooled, 1)))}
    ties = Counter(pooled)
    ranks = math.fsum(first[value] + (ties[value] - 1) / 2 for value in a)
    n, size = len(a) * len(b), len(pooled)
    spread = n / 12 * (size + 1 - sum(t**3 - t for t in ties.values()) / (size * (size - 1)))
    return 1.0 if spread <= 0 else two_sided_p((ranks - len(a) * (len(a) + 1) / 2 - n / 2) / math.sqrt(spread))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for there being several of them (Holm 1979): below 5 % bounds any false alarm by 5 %."""
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        worst = max(worst, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = worst
    return adjusted


def draws(groups: int, resamples: int, seed: int) -> "Iterator[npt.NDArray[np.int64]]":
    """A bootstrap over groups: row r of the matrices tells how often each group was drawn in resample r.

    The matrices together have `resamples` rows; each is small enough for a processor's cache.
    """
    import numpy as np

    random_state, most = np.random.default_rng(seed), max(1, 2**18 // groups)
    for start in range(0, resamples, most):
        rows = min(most, resamples - start)
        drawn = random_state.integers(0, groups, (rows, groups)) + groups * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * groups).reshape(rows, groups)


class GroupedPercentiles:
    """Percentiles of values that came in groups, such as the ITLs of one request, when groups are drawn again.

    The values are sorted once. A resample is then a number of times for each group, and its percentiles (type 7, as
    in `percentile`) are found by counting through the sorted values: in blocks first, then in the block that matters.
    A million values cost about a millisecond for each resample.
    """

    BLOCK = 256

    def __init__(self, values: "npt.ArrayLike", groups: "npt.ArrayLike", shares: Sequence[float]) -> None:
        import numpy as np

        array = np.asarray(values, dtype=np.float64)
        order = np.argsort(array)
        padding = -len(array) % self.BLOCK
        self.values = np.pad(array[order], (0, padding))
        self.groups = np.pad(np.asarray(groups, dtype=np.intp)[order], (0, padding))
        self.count = len(array)
        self.shares = np.asarray(shares, dtype=np.float64)

    def of(self, times: "npt.NDArray[np.int64]") -> "npt.NDArray[np.float64]":
        """One row of percentiles for each row of `draws`; every row must draw a group that has values."""
        import numpy as np

        rows = max(1, 2**22 // max(1, len(self.values)))
        return np.concatenate([self._of(times[i : i + rows]) for i in range(0, len(times), rows)])

    def _of(self, times: "npt.NDArray[np.int64]") -> "npt.NDArray[np.float64]":
        import numpy as np

        weights = times.astype(np.uint8).take(self.groups, axis=1)
        weights[:, self.count :] = 0
        blocks = weights.reshape(-1, self.BLOCK)
        reached = np.cumsum(blocks.sum(axis=1, dtype=np.uint32), dtype=np.int64)
        ends = reached[len(self.values) // self.BLOCK - 1 :: len(self.values) // self.BLOCK]
        before = np.concatenate([[0], ends[:-1]])
        ranks = (ends - before - 1)[:, None] * self.shares / 100
        below, above = (
            self._at(before[:, None] + to(ranks).astype(np.int64), blocks, reached) for to in (np.floor, np.ceil)
        )
        found: npt.NDArray[np.float64] = below + (above - below) * (ranks - np.floor(ranks))
        return found

    def _at(
        self, ranks: "npt.NDArray[np.int64]", blocks: "npt.NDArray[np.uint8]", reached: "npt.NDArray[np.int64]"
    ) -> "npt.NDArray[np.float64]":
        """The values at these ranks, counted over all rows one after another."""
        import numpy as np

        block = np.searchsorted(reached, ranks, side="right")
        left = ranks - np.where(block > 0, reached[block - 1], 0)
        place = (np.cumsum(blocks[block], axis=-1, dtype=np.uint16) > left[..., None]).argmax(axis=-1)
        found: npt.NDArray[np.float64] = self.values[(block * self.BLOCK + place) % len(self.values)]
        return found
