"""Throughput over a window of time: output tokens/s, input tokens/s and requests/s of the successes.

    output tokens/s = (tokens that arrived in the window) / (length of the window)

The tokens that `usage` counts are spread evenly over the arrivals of the answer's deltas, and only those inside the
window count: an answer that began before the window, or ends after it, counts with its part. Input tokens count where
the first delta arrives, when the prompt has been read; requests count where they end, or in a closed loop with the part
of their time that lies in the window: streams that run in step end together, so that a window's edge beside such a
moment has all of their requests in it or none. The window is (start, end].
"""

from collections.abc import Iterable, Sequence

from orchestrator.loadgen.record import Record, failure
from orchestrator.stats import rate

UNIT = "1/s"


def arrivals(record: Record) -> tuple[Sequence[int], float]:
    """Times at which the answer's tokens arrived (ns), and how many tokens each of them counts for."""
    times = record.content or (record.ended,)
    return times, (record.completion_tokens or 0) / len(times)


def prompt_read(record: Record) -> int:
    """When the prompt had been read, as far as a client can see: the first delta, or the end; ns."""
    return record.content[0] if record.content else record.ended


def output_tokens_per_s(records: Iterable[Record], start: int, end: int) -> float:
    """Completion tokens that arrived in the window, per second."""
    total = 0.0
    for record in _successes(records):
        times, tokens = arrivals(record)
        total += tokens * sum(start < time <= end for time in times)
    return rate(total, (end - start) / 1e9)


def input_tokens_per_s(records: Iterable[Record], start: int, end: int) -> float:
    """Prompt tokens that had been read in the window, per second; cached ones count like the others."""
    inside = (record for record in _successes(records) if start < prompt_read(record) <= end)
    return rate(sum(record.prompt_tokens or 0 for record in inside), (end - start) / 1e9)


def requests_per_s(records: Iterable[Record], start: int, end: int) -> float:
    """Requests that ended in the window, per second."""
    return rate(sum(start < record.ended <= end for record in _successes(records)), (end - start) / 1e9)


def streams_requests_per_s(records: Iterable[Record], start: int, end: int) -> float:
    """Requests of a closed loop in the window, in parts, per second: requests in flight / mean latency."""
    found = ((record.ended - record.sent, _overlap(record, start, end)) for record in _successes(records))
    return rate(sum(inside / whole for whole, inside in found if whole > 0), (end - start) / 1e9)


def _overlap(record: Record, start: int, end: int) -> int:
    return max(0, min(end, record.ended) - max(start, record.sent))


def _successes(records: Iterable[Record]) -> Iterable[Record]:
    return (record for record in records if failure(record) is None)
