"""What a plan predicts, as values: stages, serving targets, layouts, the licence's and the budget's verdict."""

from typing import Literal

from orchestrator.config import Model
from orchestrator.planner.estimate import Estimate, Unknown
from orchestrator.planner.license import Verdict
from orchestrator.planner.money.budget import Budget, Judgement
from orchestrator.planner.serving.memory import ServingFit

GIB = 2**30


class StageForecast(Model):
    """One stage that will run; a reused one has none."""

    stage: str
    """Its name."""
    memory: Estimate | Unknown | None = None
    """Bytes at the peak on the fullest accelerator; None: not predicted for this kind of stage."""
    resume: Estimate | Unknown | None = None
    """The same when it starts from a checkpoint."""
    time: Estimate | Unknown
    """Wall time, s."""
    cost: Estimate | Unknown
    """USD of the accelerators that the run holds meanwhile."""


class LoadForecast(Model):
    """What is predicted of a target under one load."""

    concurrency: int | None = None
    """Requests at once, closed loop."""
    rate: float | None = None
    """Requests/s that arrive, open loop."""
    input_tokens: int
    """Of a request."""
    output_tokens: int
    """Of an answer."""
    ttft: Estimate
    """Mean time to the first token, s."""
    tpot: Estimate
    """Mean time per output token, s."""
    throughput: Estimate
    """Output tokens/s."""
    usd_per_million: Estimate | Unknown
    """USD per million output tokens while it is always as busy as that."""


class MeasuredLoad(Model):
    """What a benchmark in the store measured of the same target under one load."""

    source: str
    """The benchmark."""
    concurrency: int | None = None
    """Requests at once, closed loop."""
    rate: float | None = None
    """Requests/s that arrived, open loop."""
    workload: str
    """What was asked."""
    ttft: float | None
    """Mean time to the first token, s."""
    tpot: float | None
    """Mean time per output token, s."""
    throughput: float
    """Output tokens/s."""
    usd_per_million: float | None
    """USD per million output tokens at the price of this plan; None: no price."""


class TargetForecast(Model):
    """One export on the engine that will serve it."""

    name: str
    """Of the export."""
    engine: str
    """That serves it."""
    quantization: str
    """Of its weights."""
    accelerator: str | None
    """Kind and count, such as H100:1; None: the CPU."""
    fit: ServingFit | Unknown
    """Whether it fits, with its parts, the longest context and the sequences held at once."""
    loads: list[LoadForecast] = []
    """Predicted; empty where a benchmark was measured, or the speed is unknown."""
    measured: list[MeasuredLoad] = []
    """Measured; replaces the prediction."""
    unknown: str | None = None
    """Why no speed is predicted."""


class Layout(Model):
    """One way to lay out the fine-tune, or one serving target, on accelerators."""

    purpose: str
    """train, or the name of an export."""
    accelerator: str
    """The recipe's word for its kind."""
    count: int
    """Accelerators that are paid for."""
    parallelism: str
    """1 GPU, 1 of N GPUs, ddp, fsdp2, tensor."""
    quantization: str
    """Number format of the weights."""
    memory: Estimate | ServingFit | Unknown
    """On the fullest accelerator, bytes."""
    visible: int | None
    """What one has, bytes; None: not in the catalog."""
    fits: bool | None
    """None: unknown."""
    time: Estimate | Unknown | None = None
    """Wall time of training, s; None for a serving target."""
    cost: Estimate | Unknown
    """USD of training; of a serving target, USD per million output tokens."""
    throughput: Estimate | Unknown
    """Tokens/s of training; of a serving target, output tokens/s under the load that targets are compared with."""
    usd_per_hour: float | None = None
    """Of all its accelerators; None: not known."""
    alternative: bool = False
    """A number format that the target's engine could have, and the recipe does not export."""
    executable: bool = True
    """Whether this version can carry it out."""
    available: bool = False
    """Whether a node of the cluster has it."""
    chosen: bool = False
    """Whether the plan takes it."""
    refused: str | None = None
    """Why it is refused, such as `needs 83.1 GiB, has 79.2 visible`."""
    remedy: str | None = None
    """The smallest change that would make it fit."""

    @property
    def slot(self) -> str:
        """KIND:COUNT."""
        return f"{self.accelerator}:{self.count}"


class Acceptance(Model):
    """Somebody who takes the risk of a licence that the gate reads as forbidding this use."""

    who: str
    """User of the operating system."""
    reason: str
    """In their words."""


class LicenseForecast(Model):
    """The licence gate's answer."""

    verdict: Verdict
    """With its reasons."""
    accepted: Acceptance | None = None
    """Who goes on nevertheless."""

    @property
    def obstacle(self) -> str | None:
        """Why the run must not start."""
        if self.verdict.status != "forbidden" or self.accepted:
            return None
        texts = [
            f"{found.subject}: {found.text}" + (f" ({found.source})" if found.source else "")
            for found in self.verdict.of("forbidden")
        ]
        return f"not allowed by licence: {'; '.join(texts)}"


class BudgetForecast(Model):
    """The budget, and what it says about the prediction."""

    budget: Budget
    """Limits of the run."""
    judgement: Judgement = Judgement()
    """Before it starts."""


class Price(Model):
    """What the accelerators of the plan cost while it runs."""

    usd_per_hour: float
    """All of them together; the middle of the market, or the cluster's own price."""
    low: float
    """Low end of the market."""
    high: float
    """High end."""
    term: str
    """on-demand, or `cluster`: the price in the cluster's file."""
    source: str
    """Where it was seen."""


class Forecast(Model):
    """Everything that is predicted of a run."""

    model: str | None = None
    """Base model, as the catalog or its config.json names it."""
    model_source: str | None = None
    """Where its dimensions were read, or why they are unknown."""
    accelerator: str | None = None
    """What the forecast is for, such as H100:1: what the plan takes, or would take if the cluster had it; None: CPU."""
    train_tokens: Estimate | Unknown | None = None
    """Tokens that training goes through, all epochs; None: no training."""
    price: Price | Unknown | None = None
    """Of the accelerators; None: the run holds none."""
    stages: list[StageForecast] = []
    """Those that will run."""
    time: Estimate | Unknown
    """Of the whole run, s."""
    cost: Estimate | Unknown
    """Of the whole run, USD."""
    targets: list[TargetForecast] = []
    """Serving targets."""
    layouts: list[Layout] = []
    """Ranked by what is preferred; refused ones last."""
    prefer: Literal["cost", "time"] = "cost"
    """What the layouts are ranked by."""
    license: LicenseForecast | None = None
    """May we."""
    budget: BudgetForecast | None = None
    """None: no limits."""
    warnings: list[str] = []
    """What may go wrong."""

    def stage(self, name: str) -> StageForecast | None:
        """Of the stage of that name."""
        return next((stage for stage in self.stages if stage.stage == name), None)


def total(parts: list[tuple[str, Estimate | Unknown]], unit: str) -> Estimate | Unknown:
    """The sum of predictions by name; Unknown, at least the sum of what is certain, where one part is."""
    from orchestrator.planner.estimate import Term

    missing = [name for name, part in parts if isinstance(part, Unknown)]
    low = sum((part.low or 0.0) for _, part in parts)
    if missing:
        reasons = dict.fromkeys(part.reason.removeprefix("unknown: ") for _, part in parts if isinstance(part, Unknown))
        return Unknown(reason=f"unknown: of {', '.join(missing)}: {'; '.join(reasons)}", low=low or None)
    known = [(name, part) for name, part in parts if isinstance(part, Estimate)]
    value, high = sum(part.value for _, part in known), sum(part.high for _, part in known)
    terms = [Term(name=name, amount=part.value, because=_because(part)) for name, part in known]
    return Estimate(unit=unit, value=value, low=low, high=high, terms=terms)


def _because(part: Estimate) -> str:
    return "; ".join(term.because for term in part.terms)
