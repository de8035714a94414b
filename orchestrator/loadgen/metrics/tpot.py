"""Time per output token: (arrival of the last delta - arrival of the first) / (completion tokens - 1)."""

from orchestrator.loadgen.record import Record

UNIT = "s/token"


def values(record: Record) -> list[float]:
    """One value; none unless two deltas arrived: a whole answer in one delta says nothing about its decoding."""
    if len(record.content) < 2 or record.completion_tokens is None or record.completion_tokens < 2:
        return []
    return [(record.content[-1] - record.content[0]) / 1e9 / (record.completion_tokens - 1)]
