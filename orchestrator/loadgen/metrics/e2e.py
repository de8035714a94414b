"""End-to-end latency: end of the stream - intended send time."""

from orchestrator.loadgen.record import Record

UNIT = "s"


def values(record: Record) -> list[float]:
    """One value."""
    return [(record.ended - record.intended) / 1e9]
