"""What one streamed request was like, and the kinds of failure; pure.

Times are nanoseconds of CLOCK_REALTIME, the clock of the kernel's receive timestamps.

A token is what the server's `usage` counts; a chunk of the stream may hold none, one or several. A success has a
finish reason of `stop`, `length` or `tool_calls`, a usage and `[DONE]`: an engine that is stopped may end its streams
with HTTP 200 and `[DONE]` (vLLM, finish reason `abort`) or with a clean end of file and neither (llama.cpp).

Kinds of failure:
    dns                  the host's name has no address
    connect              no connection to the server
    client_files         this machine has no free file descriptor
    http_<status>        another status than 200, such as http_429 or http_503
    timeout              not complete within the request's time limit, or no connection within its own
    stall                no byte for longer than the stall limit
    disconnected         the connection broke during the answer
    malformed            not HTTP, or an event that is not a completion chunk
    server_error         the stream carried an error object
    finish_<reason>      a finish reason that is no success, such as finish_abort
    cut_short            the stream ended cleanly without a finish reason
    no_usage             complete, but without token counts
    no_done              the [DONE] at the end is missing
    not_sent             the run ended before an earlier turn of its session did
"""

from array import array
from dataclasses import dataclass, field

SUCCESS_REASONS = frozenset({"stop", "length", "tool_calls"})


@dataclass(slots=True)
class Record:
    """One request as the client saw it."""

    index: int
    """Number of the request in its measurement, counted over all workers."""
    prompt: int
    """Number of its prompt in the workload; the same prompt has the same number in every measurement of a seed."""
    intended: int
    """When the schedule wanted it sent; the same as `sent` in a closed loop."""
    sent: int
    """When its bytes were first given to a connection; the set-up of a new one comes before it, see `connect`."""
    ended: int
    """When the last byte, or the failure, arrived."""
    first_chunk: int = 0
    """Arrival of the first event of the stream, whatever it held; 0: none."""
    content: "array[int]" = field(default_factory=lambda: array("q"))
    """Arrival of each delta with non-empty content, reasoning or tool-call arguments."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    """Prompt tokens that the server took from its prefix cache, where it says so."""
    reasoning_tokens: int | None = None
    """Completion tokens that were reasoning, where the server says so."""
    server_ttft_ms: float | None = None
    """TTFT as the server itself measured it for this request, where it says so (vLLM's per-request metrics)."""
    finish_reason: str | None = None
    done: bool = False
    """`[DONE]` arrived."""
    reconnected: bool = False
    """Sent twice: the server had closed the kept connection that it was first given to."""
    connect: int | None = None
    """Set-up of its connection, where a new one was needed, ns. In an open loop it counts as latency."""
    lag: int = 0
    """The longest that bytes of this answer waited in the kernel for this client, ns; 0 where it cannot be known."""
    warmup: bool = False
    """Sent before the measurement began."""
    session: int = -1
    turn: int = 0
    model: str | None = None
    status: int = 0
    """HTTP status; 0: no answer."""
    retry_after_s: float | None = None
    """What the server asked for with its Retry-After, next to a 429 or 503."""
    error: str | None = None
    """Kind of a failure of transport or form; `failure` adds the kinds that a complete stream can still show."""
    detail: str | None = None
    """What the server or the operating system said about the error."""
    text: str | None = None
    """The answer's content, where it was asked to be kept."""


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
