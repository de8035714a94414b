"""What one streamed request was like, and the metrics over many; pure. Times are seconds of one monotonic clock.

A token is what the server's `usage` counts; a chunk of the stream may hold none, one or several. A success has a
finish reason of `stop` or `length`, a usage and `[DONE]`: an engine that is stopped may end its streams with HTTP 200
and `[DONE]` (vLLM, finish reason `abort`) or with a clean end of file and neither (llama.cpp).

Kinds of failure:
    connect              no connection to the server
    http_<status>        another status than 200, such as http_503
    timeout              not complete within the request's time limit
    disconnected         the connection broke during the answer
    malformed            an event that is not a chat completion chunk
    server_error         the stream carried an error object
    finish_<reason>      a finish reason that is no success, such as finish_abort
    cut_short            the stream ended cleanly without a finish reason
    no_usage             complete, but without token counts
    no_done              the [DONE] at the end is missing
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.stats import mean, percentile, rate

SUCCESS_REASONS = frozenset({"stop", "length"})
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class Record:
    """One request as the client saw it."""

    sent: float
    """When the request was given to the connection; a new connection's set-up counts."""
    ended: float
    """When the last byte, or the failure, was seen."""
    content: tuple[float, ...] = ()
    """Arrival of each delta with non-empty content."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    """Prompt tokens that the server took from its prefix cache, where it says so."""
    finish_reason: str | None = None
    done: bool = False
    reconnected: bool = False
    """Sent twice: the server had closed the kept connection that it was first given to."""
    error: str | None = None
    """Kind of a failure of transport or form; `failure` adds the kinds that a complete stream can still show."""
    detail: str | None = None
    """What the server or the operating system said about the error."""


def failure(record: Record) -> str | None:
    """The kind of failure, from the list above; None for a success."""
    if record.error is not None:
        return record.error
    if record.finish_reason is None:
        return "cut_short"
    if record.finish_reason not in SUCCESS_REASONS:
        return f"finish_{record.finish_reason}"
    if record.completion_tokens is None:
        return "no_usage"
    return None if record.done else "no_done"


def ttft(record: Record) -> list[float]:
    """Time to first token, s: arrival of the first non-empty content delta - sent. Empty if the answer was empty."""
    return [record.content[0] - record.sent] if record.content else []


def itl(record: Record) -> list[float]:
    """Inter-token latency, s: the gap between each two consecutive content deltas (a delta may hold several tokens)."""
    return [after - before for before, after in zip(record.content, record.content[1:], strict=False)]


def tpot(record: Record) -> list[float]:
    """Time per output token, s: (last - first content delta) / (completion tokens - 1).

    Empty unless two deltas arrived: a whole answer in one delta says nothing about its decoding.
    """
    if len(record.content) < 2 or record.completion_tokens is None or record.completion_tokens < 2:
        return []
    return [(record.content[-1] - record.content[0]) / (record.completion_tokens - 1)]


def e2e(record: Record) -> list[float]:
    """End-to-end latency, s: end of the stream - sent."""
    return [record.ended - record.sent]


LATENCIES: Mapping[str, Callable[[Record], list[float]]] = {"ttft": ttft, "itl": itl, "tpot": tpot, "e2e": e2e}


@dataclass(frozen=True)
class Summary:
    """The successes of one measurement, and its failures by kind."""

    requests: int
    """Sent, failures included."""
    succeeded: int
    elapsed: float
    """Seconds from the first request sent to the last one ended."""
    latencies: Mapping[str, Mapping[str, float]]
    """ttft, itl, tpot, e2e -> mean, p50, p95, p99 in seconds and the number of values n; absent without values."""
    requests_per_s: float
    """Successes per second of `elapsed`."""
    tokens_per_s: float
    """Completion tokens of the successes per second of `elapsed`, over all streams."""
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reconnects: int
    """Requests that needed a new connection, since the server had closed a kept one."""
    errors: Mapping[str, int]
    error_example: str | None


def summarize(records: Sequence[Record]) -> Summary:
    """The metrics of all records of one measurement; latencies and rates count successes alone."""
    kinds = Counter(kind for record in records if (kind := failure(record)) is not None)
    good = [record for record in records if failure(record) is None]
    elapsed = max(r.ended for r in records) - min(r.sent for r in records) if records else 0.0
    tokens = _total(record.completion_tokens for record in good)
    return Summary(
        requests=len(records),
        succeeded=len(good),
        elapsed=elapsed,
        latencies={name: found for name, of in LATENCIES.items() if (found := _spread(good, of))},
        requests_per_s=rate(len(good), elapsed),
        tokens_per_s=rate(tokens, elapsed),
        prompt_tokens=_total(record.prompt_tokens for record in good),
        completion_tokens=tokens,
        cached_tokens=_total(record.cached_tokens for record in good),
        reconnects=sum(record.reconnected for record in records),
        errors=dict(kinds.most_common()),
        error_example=next((record.detail for record in records if record.detail), None),
    )


def _spread(records: Sequence[Record], of: Callable[[Record], list[float]]) -> dict[str, float]:
    values = [value for record in records for value in of(record)]
    if not values:
        return {}
    shares = {f"p{share}": percentile(values, share) for share in PERCENTILES}
    return {"n": len(values), "mean": mean(values), **shares}


def _total(counts: Iterable[int | None]) -> int:
    return sum(count or 0 for count in counts)
