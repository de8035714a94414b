"""Normalized latency: end-to-end latency / completion tokens (Orca, OSDI 2022; the axis of vLLM's own paper)."""

from orchestrator.loadgen.record import Record

UNIT = "s/token"


def values(record: Record) -> list[float]:
    """One value; none without completion tokens."""
    if not record.completion_tokens:
        return []
    return [(record.ended - record.intended) / 1e9 / record.completion_tokens]
