"""The plan: what a run will do, as one value. `orch plan` prints it, `orch run` executes it, the store keeps it."""

from typing import Any, Literal

from orchestrator.clusters.cluster import Cluster
from orchestrator.config import Model
from orchestrator.planner.forecast import Forecast


class Resources(Model):
    """What one stage reserves on one node while it runs."""

    num_cpus: float = 1
    """CPU cores, as Ray counts them."""
    num_gpus: float = 0
    """Accelerators."""


class Gate(Model):
    """A limit on one number that a stage measures."""

    on: str
    """Stage and metric, such as evaluate.exact_match.gain."""
    min: float | None = None
    """The smallest value that passes."""
    max: float | None = None
    """The largest value that passes."""

    @property
    def stage(self) -> str:
        """The stage that measures it."""
        return self.on.split(".", 1)[0]

    @property
    def metric(self) -> str:
        """The name among the stage's metrics."""
        return self.on.split(".", 1)[1]


class Queueing(Model):
    """How the run waits for its places (`docs/scheduling.md`)."""

    priority: int = 50
    """A higher one goes first."""
    team: str = ""
    """Whose quota it uses."""
    spot: bool = False
    """Whether nodes may be used that can be taken away at short notice."""
    prefer: Literal["cost", "time"] = "cost"
    """What makes one kind of accelerator better than another."""
    deadline_s: float | None = None
    """When it should have finished, seconds after it was submitted."""
    max_wait_s: float | None = None
    """The longest it may wait for places."""


class PlannedStage(Model):
    """One stage: what it reads, what it reserves, and the digest that says whether it has run before."""

    name: str
    config: dict[str, Any]
    digest: str
    """Of the configuration, the digests of the stages before it, the code and the libraries that matter."""
    resources: Resources
    reused_from: str | None = None
    """The run whose result stands, found when the plan was made."""


class PlannedTarget(Model):
    """One export target: whether it can be served where the plan runs, and by which command."""

    name: str
    """Of the export."""
    engine: str
    """That serves it."""
    quantization: str
    """Of its weights."""
    required: bool
    """Whether the run cannot do without it."""
    refused: str | None = None
    """Why it cannot be served here; None: nothing is known against it."""
    environment: str | None = None
    """What the engine needs installed, such as `vllm 0.32.0`; None: the interpreter that runs orch."""
    installed: bool = True
    """Whether this machine has the environment."""
    command: list[str] = []
    """Starts the engine; port and name of the model stand for those that the run will give it."""
    variables: dict[str, str] = {}
    """Environment variables that the command needs."""
    files: dict[str, str] = {}
    """Files that the command reads -> their text."""

    @property
    def left_out(self) -> bool:
        """Whether the run goes on without it."""
        return bool(self.refused) and not self.required


class Plan(Model):
    """What `orch run` executes."""

    recipe: str
    """Name of the recipe."""
    path: str
    """File of the recipe."""
    directory: str
    """Where the command was given: relative paths and `prepare` commands start here."""
    cluster: Cluster
    accelerator: str | None
    """The kind chosen from `resources.accelerators`; None where no stage needs one."""
    stages: list[PlannedStage]
    gates: list[Gate]
    skipped_gates: list[Gate] = []
    """Those of the recipe on targets that are left out."""
    targets: list[PlannedTarget] = []
    """Every export of the recipe."""
    service: str | None
    """The service that the run releases to."""
    obstacles: list[str]
    """Why this plan cannot run on this cluster; empty when it can."""
    refused: bool = False
    """Whether one of them stands on every cluster: it fits nowhere, a licence forbids it, it is over the budget."""
    advice: str | None = None
    """What to change, so that it can."""
    queueing: Queueing = Queueing()
    """How it waits."""
    forecast: Forecast | None = None
    """Memory, time, cost, layouts, licence and budget; None in a plan of an older version. No digest depends on it."""

    def stage(self, name: str) -> PlannedStage | None:
        """The stage of that name."""
        return next((stage for stage in self.stages if stage.name == name), None)
