"""The recipe: one typed, frozen value. Each section is the configuration of the code that reads it."""

import contextlib
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from orchestrator.config import Model, NotAvailable
from orchestrator.planner.license import Compliance
from orchestrator.planner.money.budget import Budget
from orchestrator.planner.plan import Gate
from orchestrator.stages.benchmark import Section as Benchmark
from orchestrator.stages.deploy import Serve
from orchestrator.stages.evaluate import Task
from orchestrator.stages.export import Entry
from orchestrator.stages.parity import Section as Parity
from orchestrator.stages.prepare import Dataset, Source
from orchestrator.stages.train import Config as Train
from orchestrator.units import Bytes, Seconds

_ACCELERATOR = re.compile(r"(?P<kind>[A-Za-z0-9-]+):(?P<count>[1-9]\d*)")


ANY = "any"
"""Every accelerator that the catalog has a price of, and those of the cluster."""


def _accelerator(value: str) -> str:
    if value != ANY and not _ACCELERATOR.fullmatch(value):
        raise ValueError(f"an accelerator is written KIND:COUNT, such as H100:1, or any; found {value!r}")
    return value


def _listed(value: Any) -> Any:
    """`any` and `H100:1` are lists of one."""
    return [value] if isinstance(value, str) else value


class Wanted(Model):
    """The `resources` section: what the heavy stages need."""

    accelerators: Annotated[list[Annotated[str, AfterValidator(_accelerator)]], BeforeValidator(_listed)] = []
    """Kinds and counts that would do, such as [H100:1, A100-80GB:1], or `any`; the plan takes the best that fits and
    that the cluster has."""
    prefer: Literal["cost", "time"] = "cost"
    """What makes one better than another: the cost of training on it, or the time."""
    nodes: int = Field(1, ge=1, le=1)
    """Nodes of one stage; more than one is not available yet."""
    spot: bool = False
    """Whether nodes may be used that can be taken away at short notice: training goes on from its last checkpoint."""

    def choices(self) -> list[tuple[str, int]]:
        """(kind, count) as they are written; `any` is none of them."""
        found = (_ACCELERATOR.fullmatch(text) for text in self.accelerators)
        return [(match["kind"], int(match["count"])) for match in found if match]

    @property
    def any(self) -> bool:
        """Whether every accelerator would do."""
        return ANY in self.accelerators


class Queue(Model):
    """The `queue` section: how the run waits for its turn on the cluster."""

    team: str = ""
    """Whose quota it uses; without one it may use what nobody else wants."""
    deadline: Seconds | None = None
    """When the run should have finished, such as 12h after it was submitted: it goes ahead as that comes near."""
    max_wait: Seconds | None = None
    """The longest that it waits for places, such as 2d; then it fails."""


class RecipeGate(Gate):
    """A limit on one number; `500ms` and `2GB` are read as seconds and bytes."""

    min: Annotated[float | None, BeforeValidator(lambda value: _number(value))] = None
    """The smallest value that passes."""
    max: Annotated[float | None, BeforeValidator(lambda value: _number(value))] = None
    """The largest value that passes."""


def _number(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    for unit in (Seconds, Bytes):
        with contextlib.suppress(ValueError):
            return float(unit.parse(value))
    raise ValueError(f"{value!r} is no number, duration or size; write it like 0.8, 500ms or 2GB")


class Recipe(Model):
    """From data to a released service; every section but the name is optional.

    A recipe without a base model can only benchmark servers that run already.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the runs of this recipe."""
    base_model: Source | None = None
    """Hub id, local folder, or {prepare: command}."""
    revision: str | None = None
    """Commit of the hub model; without it, whatever is newest."""
    datasets: list[Dataset] = Field([], max_length=1)
    """Training rows."""
    test_datasets: list[Dataset] = Field([], max_length=1)
    """Held-out rows."""
    allow_leakage: bool = False
    """Go on although test rows are in the training data, too."""
    train: Train | None = None
    """Fine-tuning."""
    evaluate: list[Task] = []
    """Base model and tuned model, side by side."""
    export: list[Entry] = []
    """What is made of the tuned model: one entry an engine and a quantization."""
    parity: Parity = Parity()
    """How exports are compared with the model as it was trained."""
    benchmark: Benchmark | None = None
    """Latency and throughput of the deployed release, of exports and of other servers."""
    gates: list[RecipeGate] = []
    """Limits that must hold before the release is promoted."""
    serve: Serve | None = None
    """The service to release to."""
    resources: Wanted = Wanted()
    """What the heavy stages need."""
    compliance: Compliance | None = None
    """Who uses the model, where and for what: judged against the licences before anything starts."""
    budget: Budget | None = None
    """What the run may cost and last at most: judged in the plan, and again while it runs."""
    priority: int = Field(50, ge=0, le=100)
    """0 to 100: a run of a higher priority goes first, and one of a lower priority yields to it."""
    queue: Queue = Queue()
    """How the run waits for its turn on the cluster."""
    env: NotAvailable = None
    """Not available yet."""
