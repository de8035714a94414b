"""`RunReport`: everything that the report of a run shows, as one plain value; whoever keeps the runs fills it."""

from typing import Any, Literal

from orchestrator.config import Model


class StageReport(Model):
    """One stage of the run, in the order of the plan."""

    name: str
    state: str
    """pending, running, succeeded, reused, failed or cancelled."""
    seconds: float | None = None
    """How long it ran; of a reused stage, how long it once ran."""
    error: str | None = None
    metrics: dict[str, float] = {}
    report: dict[str, Any] = {}
    """`Outputs.report` of the stage."""


class GateReport(Model):
    """One gate and its verdict."""

    name: str
    """What it is on, such as evaluate.exact_match.gain."""
    value: float | None = None
    """None where nothing was measured."""
    limit: str
    """As the recipe says it, such as `at least 0.2` or `at most 500 ms`."""
    verdict: Literal["passed", "failed", "not judged"]


class TargetReport(Model):
    """One export of the recipe, made or left out."""

    name: str
    engine: str
    quantization: str
    environment: str | None = None
    """What its engine runs from, such as `vllm 0.32.0`; None: the interpreter that runs orch."""
    left_out: str | None = None
    """Why it cannot be served where the run was; None: it was made."""


class RunReport(Model):
    """One run."""

    run: str
    recipe: str
    digest: str
    """Of the plan."""
    state: str
    started: float | None = None
    """Seconds since 1970, UTC."""
    ended: float | None = None
    owner: str | None = None
    error: str | None = None
    next_step: str | None = None
    """What to type after a failure."""
    stages: list[StageReport]
    gates: list[GateReport] = []
    targets: list[TargetReport] = []
    release: str | None = None
    """`service@number` that this run made."""
    url: str | None = None
    """Stable URL of its service."""
    hardware: dict[str, Any] = {}
    """As `loadgen.hardware.describe` says it; the benchmark's own is preferred where the two differ."""
    benchmark: dict[str, Any] = {}
    """The benchmark's `Result` as JSON; empty where none is kept."""
    versions: dict[str, str] = {}
    """Distribution -> version."""

    def stage(self, name: str) -> StageReport | None:
        """The stage of that name, if the recipe has it."""
        return next((stage for stage in self.stages if stage.name == name), None)
