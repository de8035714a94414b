"""Goodput: share and rate of the requests that succeed and keep every limit of an SLO (DistServe, OSDI 2024).

    goodput       = (requests that succeeded and kept all limits) / (all requests)
    goodput per s = (such requests that ended in the window) / (length of the window)

A request keeps `ttft`, `tpot` and `e2e` when its own value is at most the limit, and `itl` when the mean of its values
is. A limit on something that a request does not have (TPOT of one token) is kept.
"""

from collections.abc import Mapping, Sequence

from orchestrator.loadgen import metrics
from orchestrator.loadgen.record import Record, failure
from orchestrator.stats import rate

UNIT = "share, 1/s"


def kept(record: Record, limits: Mapping[str, float]) -> bool:
    """Whether the request succeeded within the limits: names of latencies -> seconds."""
    if failure(record) is not None:
        return False
    of = metrics.latencies()
    found = ((of[name](record), limit) for name, limit in limits.items())
    return all(sum(values) <= limit * len(values) for values, limit in found)


def share(records: Sequence[Record], limits: Mapping[str, float]) -> float:
    """Share of all records, failures included, that kept the limits, 0..1; 0 without records."""
    return rate(sum(kept(record, limits) for record in records), len(records))


def per_s(records: Sequence[Record], limits: Mapping[str, float], start: int, end: int) -> float:
    """Requests that kept the limits and ended in the window (start, end] of ns, per second."""
    good = sum(start < record.ended <= end and kept(record, limits) for record in records)
    return rate(good, (end - start) / 1e9)
