"""How many replicas a load needs, and how much of it a smaller fleet carries. Pure; all of one service.

The load of a month is described by its mean and its peak alone: sorted by time, it is taken to follow
`mean x r x^(r-1)` over the share x of the time, with r = peak / mean. That is the one-parameter curve with this mean
and this peak (r = 1 is constant, r = 2 a straight line); real curves differ, and a trace says more.
"""

import math
from collections.abc import Mapping

Values = Mapping[str, float]
"""Assumption -> number; an unknown throughput is infinite."""


def carried(v: Values) -> float:
    """Tokens a month that one replica carries when its peak, not its mean, is at the utilisation that is allowed."""
    return at_peak(v) / v["workload.peak_to_mean"]


def at_peak(v: Values) -> float:
    """Tokens a month of one replica that always runs at the utilisation that is allowed."""
    seconds = v["gpu.hours_per_month"] * 3600
    return v["serving.tokens_per_s_per_replica"] * v["serving.peak_utilisation"] * seconds


def replicas(v: Values, tokens: float) -> int:
    """Replicas that share the load of a month: ceil(peak / what one carries), spares not counted."""
    needed = math.ceil(tokens / carried(v) * (1 - 1e-12)) if tokens else 0  # 1e-12: exactly full is full, not one more
    return max(int(v["serving.min_replicas"]), needed)


def utilisation(v: Values, tokens: float, count: int) -> float | None:
    """Mean load over the capacity of so many replicas; None where the capacity is unknown."""
    seconds = v["gpu.hours_per_month"] * 3600
    found = tokens / (v["serving.tokens_per_s_per_replica"] * seconds * count) if count else 0.0
    return found if math.isfinite(v["serving.tokens_per_s_per_replica"]) else None


def share_carried(v: Values, tokens: float, count: int) -> float:
    """Share of the tokens that so many replicas carry themselves when whatever is over their capacity overflows.

    With c = capacity / mean load and r = peak / mean, the curve is under c for the share x = (c/r)^(1/(r-1)) of the
    time, where it is carried whole: x^r; above it c is carried: c (1 - x).
    """
    if not tokens:
        return 1.0
    peak, capacity = v["workload.peak_to_mean"], at_peak(v) * count / tokens
    if capacity >= peak:
        return 1.0
    if peak - 1 < 1e-9:
        return min(1.0, capacity)
    below = math.pow(capacity / peak, 1 / (peak - 1))
    return min(1.0, math.pow(below, peak) + capacity * (1 - below))
