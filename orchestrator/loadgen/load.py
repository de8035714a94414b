"""What is asked of the load generator, and what it gives back; plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.loadgen.record import Record


@dataclass(frozen=True)
class Load:
    """One measurement: where to, how many at a time, for how long.

    Requests with a time (`Request.at`) make an open loop: each is sent at its time, whatever the server does, and its
    latency counts from that time. Requests without one make a closed loop of `concurrency` streams; they are sent over
    and over, each time with a new nonce, until `num_requests` or `duration_s` is reached.
    """

    url: str
    """Base URL of the OpenAI API, such as http://127.0.0.1:8000/v1."""
    path: str = "/chat/completions"
    """Appended to the base URL: /chat/completions or /completions."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Beyond the ones that are always sent; Authorization, for example."""
    concurrency: int | None = None
    """Closed loop: streams at the same time. Open loop: the most requests in flight; None: no limit."""
    num_requests: int | None = None
    """Closed loop: requests to measure. Open loop: all of the file."""
    duration_s: float | None = None
    """Send for this long after the warm-up, then wait for what is in flight."""
    warmup_requests: int = 0
    """Closed loop: the first so many are not measured."""
    warmup_s: float = 0.0
    """Requests that start this early are not measured (open loop, or beside `warmup_requests`)."""
    timeout_s: float = 600.0
    """For one request, from its intended time."""
    stall_s: float = 120.0
    """Longest time without a byte of an answer that has begun to be waited for."""
    workers: int = 1
    """Client processes; each holds its share of the streams."""
    keep_text: bool = False
    """Keep the answers' content."""
    says_done: bool = True
    """The server ends its streams with [DONE]; else a finish reason and the end of the answer do."""
    seed: int = 17
    """Recorded; decides what is random about the load itself."""


@dataclass(frozen=True)
class WorkerReport:
    """How one client process fared: whether the numbers are the server's or its own."""

    cpu_share: float
    """Share of one core that it used while measuring, 0..1."""
    lag_p50_s: float
    """Time that received bytes waited in the kernel for this process; None-like 0 where the kernel does not say."""
    lag_p99_s: float
    send_late_p99_s: float
    """Open loop: sent - intended where nothing but the client can have delayed it."""
    kernel_timestamps: bool
    """False: arrival times were taken by the process when it woke up."""
    peak_memory: int
    """Resident memory at its highest, bytes."""


@dataclass(frozen=True)
class Progress:
    """What a live view shows; over all workers, since the start of the measurement (warm-up excluded unless said)."""

    elapsed_s: float
    phase: str
    """warm-up | measuring | draining"""
    sent: int
    ended: int
    errors: Mapping[str, int]
    in_flight: int
    completion_tokens: int
    """Deltas that arrived so far, where the usage is not known yet."""
    total: int | None
    """Requests that there will be; None when the duration decides."""
    recent_ttft_s: Sequence[float]
    """TTFT of the latest requests, up to some hundreds."""
    recent_itl_s: Sequence[float]


@dataclass(frozen=True)
class Measurement:
    """The outcome of a load."""

    records: Sequence[Record]
    """All of them, warm-up included, in the order in which they ended."""
    start: int
    """When the steady window began, ns: the end of the warm-up."""
    end: int
    """When it ended, ns: the last request was sent and no longer all streams were kept busy."""
    workers: Sequence[WorkerReport]
    client_limited: bool
    """The client was the limit: its lag or its use of a core says so. More workers would help."""
    clock_step_s: float = 0.0
    """By how much the system's clock was set meanwhile, against the monotonic one; intervals may be wrong by that."""

    def as_dict(self) -> dict[str, Any]:
        """The facts about the client, for a report."""
        worst = max(self.workers, key=lambda worker: worker.lag_p99_s)
        return {
            "workers": len(self.workers),
            "limited": self.client_limited,
            "cpu_share": max(worker.cpu_share for worker in self.workers),
            "lag_p50_s": worst.lag_p50_s,
            "lag_p99_s": worst.lag_p99_s,
            "send_late_p99_s": max(worker.send_late_p99_s for worker in self.workers),
            "kernel_timestamps": all(worker.kernel_timestamps for worker in self.workers),
            "peak_memory": sum(worker.peak_memory for worker in self.workers),
            "clock_step_s": self.clock_step_s,
        }
