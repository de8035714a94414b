"""A benchmark's result: one JSON value that the store keeps, reports show, and other tools' files turn into.

Its folder `$ORCH_HOME/benchmarks/<id>/` holds `result.json`, one file of records per cell, and `report.html`.
Times are seconds, counts are tokens or requests; what is not known is None, never a guess.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, field_validator, model_validator

from orchestrator.config import Model
from orchestrator.units import Seconds


class Spread(Model):
    """How one latency is distributed over a cell; seconds."""

    n: int
    mean: float
    min: float
    max: float
    p50: float
    p90: float
    p95: float
    p99: float
    intervals: dict[str, tuple[float, float]] = {}
    """95 % bootstrap interval of mean, p50, p90, p95, p99 (resampled by request)."""
    quantiles: list[float] = []
    """The 0th, 1st ... 100th percentile, for a plot of the distribution."""


def _seconds(value: Any) -> Any:
    """`500ms` is 0.5; nothing else than a number or a duration is a limit."""
    return None if value is None else float(Seconds.parse(value))


Limit = Annotated[float | None, BeforeValidator(_seconds)]
"""A time in seconds; read from `500ms` as well."""


class Slo(Model):
    """Limits that one request has to keep, to count as goodput; seconds."""

    ttft: Limit = None
    itl: Limit = None
    """Of the request's mean inter-token latency."""
    tpot: Limit = None
    e2e: Limit = None
    share: float = 0.99
    """Share of the requests that has to keep all limits, for the cell to keep the SLO."""

    @field_validator("ttft", "itl", "tpot", "e2e")
    @classmethod
    def _possible(cls, value: float | None) -> float | None:
        if value == 0:
            raise ValueError("no request takes 0 s; write a limit such as 500ms, or leave it out")
        return value

    @field_validator("share")
    @classmethod
    def _a_share(cls, value: float) -> float:
        if not 0 < value <= 1:
            hint = f"; for {value:g} % write {value / 100:g}" if 1 < value <= 100 else ""
            raise ValueError(f"a share of the requests lies above 0 and up to 1, not {value:g}{hint}")
        return value

    @model_validator(mode="after")
    def _not_against_itself(self) -> Self:
        limits = {name: value for name in ("ttft", "itl", "tpot", "e2e") if (value := getattr(self, name)) is not None}
        if not limits:
            raise ValueError("an SLO needs a limit: ttft, itl, tpot or e2e, such as {ttft: 500ms}")
        whole = limits.pop("e2e", None)
        for name, part in limits.items():
            if whole is not None and part > whole:
                raise ValueError(
                    f"{name} may take {Seconds(part)}, but the whole request (e2e) only {Seconds(whole)}:"
                    f" the limit on {name} says nothing; lower it, or raise e2e"
                )
        if whole is not None and self.ttft and self.tpot and self.ttft + self.tpot > whole:
            raise ValueError(
                f"ttft ({Seconds(self.ttft)}) and tpot ({Seconds(self.tpot)}) together exceed e2e ({Seconds(whole)}):"
                " an answer of two tokens that just keeps both breaks the third; lower one of them, or raise e2e"
            )
        return self


class Second(Model):
    """One second (or a longer step) of a cell."""

    t: float
    """Seconds from the start of the measurement."""
    sent: int
    ended: int
    errors: int
    output_tokens: float
    in_flight: int
    ttft_p50: float | None = None
    ttft_p95: float | None = None


class Client(Model):
    """Whether the numbers are the server's: how the load generator itself fared (see loadgen/load.py)."""

    workers: int
    limited: bool
    cpu_share: float
    lag_p50_s: float
    lag_p99_s: float
    send_late_p99_s: float
    kernel_timestamps: bool
    peak_memory: int
    clock_step_s: float = 0.0


class EngineSample(Model):
    """The server's own metrics at one moment; None where it does not say."""

    t: float
    """Seconds from the start of the measurement."""
    running: float | None = None
    waiting: float | None = None
    kv_cache_usage: float | None = None
    """0..1"""
    batch_size: float | None = None
    """Mean sequences per step, where the server says so."""
    prompt_tokens_total: float | None = None
    generated_tokens_total: float | None = None
    cached_tokens_total: float | None = None
    preemptions_total: float | None = None
    steps_total: float | None = None


class Summary(Model):
    """The numbers of one cell. Latencies and rates count successes alone, of the steady window."""

    requests: int
    """Measured, failures included; the warm-up is not."""
    succeeded: int
    warmup_requests: int
    duration_s: float
    """Length of the steady window."""
    latencies: dict[str, Spread]
    """By the names of loadgen/metrics: ttft, first_chunk, itl, tpot, normalized_latency, e2e; absent without values."""
    requests_per_s: float
    output_tokens_per_s: float
    input_tokens_per_s: float
    intervals: dict[str, tuple[float, float]] = {}
    """95 % bootstrap interval of the rates, by their names."""
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None
    reasoning_tokens: int | None = None
    errors: dict[str, int]
    """Failures by kind."""
    error_example: str | None = None
    reconnects: int = 0
    goodput: float | None = None
    """Share of all measured requests that succeeded and kept the SLO, 0..1; None without an SLO."""
    goodput_per_s: float | None = None
    """Such requests per second."""
    keeps_slo: bool | None = None
    usd_per_million_tokens: float | None = None
    """Price of the hardware per hour over the output tokens of an hour at this rate."""
    usd_per_million_total_tokens: float | None = None
    """The same over input and output tokens."""
    steady: bool | None = None
    """Whether the first and the second half of the window agree; None: too few requests to say."""
    steady_note: str | None = None
    client: Client | None = None
    """None for a result of another tool."""
    timeline: list[Second] = []
    engine: list[EngineSample] = []


class Cell(Model):
    """One measurement of a sweep: one target, one workload, one load."""

    id: str
    """Digest of what makes it this cell; names its files."""
    target: str
    """Name of the export or of the server."""
    workload: str
    """Name of the workload."""
    mode: Literal["closed", "open"]
    concurrency: int | None = None
    rate: float | None = None
    """Requests/s that were offered, open loop."""
    state: Literal["done", "failed"] = "done"
    cause: str | None = None
    """Why it failed."""
    started: float = 0.0
    """Unix time."""
    order: int = 0
    """Its place in the randomised order of the sweep."""
    summary: Summary | None = None
    records: str | None = None
    """Name of the file of its records, in the result's folder."""

    @property
    def load(self) -> str:
        """`8 streams` or `4 req/s`."""
        return f"{self.concurrency} streams" if self.mode == "closed" else f"{self.rate:g} req/s"


class Target(Model):
    """What was measured, and where it ran."""

    name: str
    url: str
    model: str
    engine: str | None = None
    engine_version: str | None = None
    engine_args: dict[str, Any] = {}
    quantization: str | None = None
    release: str | None = None
    hardware: dict[str, Any] | None = None
    """Of the machine that the server runs on, see loadgen/hardware.py; None when it is not this one."""
    usd_per_hour: float | None = None
    """Price of that hardware, with its source in `price_source`."""
    price_source: str | None = None


class Search(Model):
    """What `sweep: auto` found for one target and workload."""

    target: str
    workload: str
    knee: int | None = None
    """Concurrency beyond which throughput grows by less than a tenth per doubling."""
    knee_rate: float | None = None
    """Requests/s that were served there."""
    max_rate: float | None = None
    """Highest request rate that kept the SLO."""
    first_bad_rate: float | None = None
    """Lowest request rate that broke it."""
    trials: int
    note: str | None = None


class Result(Model):
    """One benchmark: every cell of a sweep, and what it ran on."""

    id: str
    name: str
    """Of the recipe, or of the server's host."""
    created: float
    """Unix time."""
    orch_version: str
    source: str = "orch"
    """Or the tool whose file this was imported from."""
    client_hardware: dict[str, Any] | None = None
    recipe_digest: str | None = None
    run: str | None = None
    service: str | None = None
    slo: Slo | None = None
    workloads: dict[str, dict[str, Any]] = {}
    """Name -> its settings, seed and what it held."""
    settings: dict[str, Any] = {}
    targets: list[Target]
    cells: list[Cell]
    searches: list[Search] = []
    prompt_parity: dict[str, Any] | None = None
    """Whether all targets counted the same prompt tokens for the same prompts; None with one target."""

    def target(self, name: str) -> Target:
        """The target of that name."""
        return next(target for target in self.targets if target.name == name)
