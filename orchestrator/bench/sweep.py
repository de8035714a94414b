"""What is measured, and in which order: from the settings to a list of cells; pure.

    plan = SweepPlan(concurrency=[1, 8], workload=Workload(...))
    for cell in cells(plan, ["fp8", "gguf"]):
        ...

A cell is one target, one workload and one load; its id is the digest of all that makes its numbers, so that a sweep
that was killed finds its finished cells again. Targets come in a random order, and so do the cells within one target:
all cells of a target stand together, since its engine may have to be started for them. The seed decides both.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from orchestrator.bench.result import Slo
from orchestrator.config import Model
from orchestrator.digests import digest_value
from orchestrator.loadgen.workload.spec import Workload
from orchestrator.units import Seconds

_NOT_OF_A_CELL = {
    *("workload", "workloads", "concurrency", "request_rate", "sweep", "max_trials", "max_errors", "cell_timeout")
}
"""Settings that leave the numbers of a finished cell as they are, or that a cell has of its own."""
DURATION_S = 60.0
"""Of an open loop, where nothing else is said."""
LEAST_ARRIVALS = 64
"""An open loop at a low rate lasts longer, until so many requests are expected ..."""
LONGEST_S = 600.0
"""... but no longer than this."""


class SweepPlan(Model):
    """How targets are measured: the settings of a `benchmark` section that do not say what is measured."""

    workload: Workload = Workload()
    """What is asked."""
    workloads: list[Workload] = []
    """Several of them, each with a `name`; in place of `workload`."""
    concurrency: list[Annotated[int, Field(ge=1, le=20_000)]] = []
    """Numbers of simultaneous streams; each is measured on its own. Default: 1 and 8, unless rates are given."""
    request_rate: list[Annotated[float, Field(gt=0, le=1e6)]] = []
    """Requests/s that arrive whatever the server does; each is measured on its own."""
    sweep: Literal["auto"] | None = None
    """auto: find the knee of the throughput, and with an `slo` the highest rate that keeps it."""
    max_trials: int = Field(20, ge=3)
    """Of `sweep: auto`, for one target and workload."""
    slo: Slo | None = None
    """Limits that a request has to keep to count as goodput, such as {ttft: 500ms, tpot: 50ms, share: 0.99}."""
    num_requests: int | None = Field(None, ge=1)
    """Measured requests of a cell. Default at a concurrency: four per stream, at least 32; at a rate: by `duration`."""
    duration: Seconds | None = None
    """Time that a cell sends for. Default at a rate: 60 s, or what 64 requests take, at most 10 min."""
    warmup: int | None = Field(None, ge=0)
    """At a concurrency: requests before a cell that are not measured. Default: one per stream, at least 4."""
    warmup_duration: Seconds = Seconds(5)
    """At a rate: time before a cell that is not measured."""
    max_tokens: int = Field(128, ge=1)
    """Longest answer, in tokens, where the workload does not say it."""
    temperature: float = Field(0, ge=0)
    """0 is greedy decoding."""
    seed: int = 17
    """Decides the prompts, their order, the arrivals and the order of the cells."""
    workers: int = Field(1, ge=1, le=256)
    """Client processes; more where a cell says that it was limited by the client."""
    request_timeout: Seconds = Seconds(300)
    """Time after which a request counts as failed."""
    stall_timeout: Seconds = Seconds(120)
    """Time without a byte of an answer after which a request counts as failed."""
    max_errors: int | None = Field(None, ge=1)
    """Failed requests after which a cell ends as failed. Without it, one ends when its first requests all failed."""
    cell_timeout: Seconds = Seconds(3600)
    """Time after which a cell ends as failed."""

    @field_validator("concurrency", "request_rate", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return value if isinstance(value, list | tuple) else [value]

    @field_validator("concurrency", "request_rate")
    @classmethod
    def _each_once(cls, loads: list[Any]) -> list[Any]:
        if len(set(loads)) < len(loads):
            raise ValueError(f"each is measured once, but {loads} repeats one")
        return loads

    @field_validator("workloads")
    @classmethod
    def _named(cls, workloads: list[Workload]) -> list[Workload]:
        titles = [workload.title for workload in workloads]
        if len(set(titles)) < len(titles):
            raise ValueError(f"each workload needs a name of its own; found {', '.join(titles)}")
        return workloads

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.workloads and "workload" in self.model_fields_set and self.workload != Workload():
            raise ValueError("give either workload or workloads")
        if self.sweep and (self.concurrency or self.request_rate):
            raise ValueError("sweep: auto chooses the loads itself; leave out concurrency and request_rate")
        if self.duration is not None and self.duration <= 0:
            raise ValueError("a duration must be above 0 s")
        bursty = [workload.title for workload in self.asked if workload.arrivals is not None]
        if bursty and not self.request_rate and not self.sweep:
            raise ValueError(f"arrivals say how requests come at a rate; give request_rate for {', '.join(bursty)}")
        return self

    @property
    def asked(self) -> list[Workload]:
        """The workloads."""
        return self.workloads or [self.workload]


@dataclass(frozen=True)
class CellPlan:
    """One cell that is to be measured. Neither a concurrency nor a rate: a trace at its own times."""

    id: str
    target: str
    workload: Workload
    concurrency: int | None = None
    rate: float | None = None

    @property
    def mode(self) -> Literal["closed", "open"]:
        """Closed: a new request follows an answer. Open: requests arrive at their times."""
        return "open" if self.concurrency is None else "closed"


def cells(plan: SweepPlan, targets: Sequence[str]) -> list[CellPlan]:
    """The cells in the order in which they are measured; none for `sweep: auto`, which decides as it goes."""
    found: list[CellPlan] = []
    for target in in_order(plan, targets):
        mine = [cell(plan, target, workload, *load) for workload in plan.asked for load in _loads(plan, workload)]
        random.Random(f"{plan.seed} cells {target}").shuffle(mine)
        found += mine
    return found


def in_order(plan: SweepPlan, targets: Sequence[str]) -> list[str]:
    """The targets in their random order, which does not depend on the one that they are named in."""
    found = sorted(targets)
    random.Random(f"{plan.seed} targets").shuffle(found)
    return found


def cell(
    plan: SweepPlan,
    target: str,
    workload: Workload,
    concurrency: int | None = None,
    rate: float | None = None,
    repeat: int = 0,
) -> CellPlan:
    """A cell with its id; `repeat` tells several of the same load apart."""
    shared = plan.model_dump(mode="json", include=set(SweepPlan.model_fields) - _NOT_OF_A_CELL)
    made_of = {
        "target": target,
        "workload": workload.model_dump(mode="json"),
        "load": [concurrency, rate, repeat],
        **shared,
    }
    return CellPlan(digest_value(made_of)[:16], target, workload, concurrency, rate)


def _loads(plan: SweepPlan, workload: Workload) -> list[tuple[int | None, float | None]]:
    if plan.sweep:
        return []
    given: list[tuple[int | None, float | None]] = [
        *((concurrency, None) for concurrency in plan.concurrency),
        *((None, rate) for rate in plan.request_rate),
    ]
    return given or ([(None, None)] if workload.trace else [(1, None), (8, None)])


def num_requests(plan: SweepPlan, cell: CellPlan) -> int | None:
    """Requests that a cell measures; None where its duration decides."""
    if plan.num_requests or plan.duration or cell.concurrency is None:
        return plan.num_requests
    return max(32, 4 * cell.concurrency)


def duration_s(plan: SweepPlan, cell: CellPlan) -> float | None:
    """Seconds that a cell sends for after its warm-up; None where its requests, or a trace's end, decide."""
    if plan.duration or cell.rate is None:
        return plan.duration
    if plan.num_requests:
        return plan.num_requests / cell.rate
    return max(DURATION_S, min(LONGEST_S, LEAST_ARRIVALS / cell.rate))


def warmup_requests(plan: SweepPlan, cell: CellPlan) -> int:
    """Requests before the measurement of a closed loop."""
    if cell.concurrency is None:
        return 0
    return max(4, cell.concurrency) if plan.warmup is None else plan.warmup
