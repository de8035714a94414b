"""Inter-token latency: the gap between each two consecutive non-empty deltas of an answer.

A delta may hold several tokens (speculative decoding, multi-step scheduling), so this is what a reader sees; TPOT is
the mean per token that `usage` counts.
"""

from itertools import pairwise

from orchestrator.loadgen.record import Record

UNIT = "s"


def values(record: Record) -> list[float]:
    """Number of deltas - 1 values."""
    return [(after - before) / 1e9 for before, after in pairwise(record.content)]
