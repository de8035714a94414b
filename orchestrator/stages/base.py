"""What a stage is: one module of this folder with `Config`, `estimate`, `LIBRARIES` and `run`.

A stage's module holds no torch: heavy work happens in a worker program (`orchestrator/workers/`), which
`Context.worker` starts as a process of its own and whose events it forwards.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from orchestrator.config import Model
from orchestrator.engines.base import Work
from orchestrator.environments.site import Site
from orchestrator.planner.plan import Resources


class Outputs(Model):
    """What a stage leaves behind; stored as JSON and handed to the stages after it."""

    artifacts: dict[str, str] = {}
    """Name -> absolute path of a file or folder."""
    metrics: dict[str, float] = {}
    """Flat, dotted names -> numbers; a gate on `evaluate.exact_match.gain` reads `exact_match.gain` here."""
    report: dict[str, Any] = {}
    """Anything else that the report shows: curves, samples, versions."""


class Emit(Protocol):
    """Records an event of the run, such as `emit("progress", step=3, loss=1.9)`."""

    def __call__(self, kind: str, /, **data: Any) -> None: ...


@dataclass(frozen=True)
class Context:
    """What a stage may use while it runs."""

    home: Path
    """Folder of the store."""
    run: str
    """Id of the run."""
    digest: str
    """Of the stage."""
    cwd: Path
    """Where the command was given: relative paths of the recipe start here."""
    directory: Path
    """The stage's own folder, named by its digest: a second attempt finds what the first one left (checkpoints)."""
    inputs: Mapping[str, Outputs]
    """Outputs of the earlier stages, by stage name."""
    emit: Emit
    worker: Work
    site: Site
    """Environments of engines and quantizers on this node."""

    def say(self, message: str) -> None:
        """One line for whoever follows the run."""
        self.emit("log", message=message)


__all__ = ["Context", "Emit", "Outputs", "Resources", "Stage", "Work", "local_path"]


def local_path(text: str | None, cwd: Path) -> Path:
    """Where a path of the recipe is: `~` is the home folder, a relative one starts where the command was given."""
    return cwd / os.path.expanduser(text or "")


class Stage(Protocol):
    """The shape of a stage's module (mypy checks every module of this folder against it)."""

    LIBRARIES: tuple[str, ...]
    """Distributions whose version changes the stage's result; part of its digest."""

    # optional:
    # WORKERS, names of the worker files whose code is part of the digest;
    # METRICS, names of all metrics (`*` stands for a target), so that a gate on another one is refused in the plan;
    # metric_names(config) instead, where the configuration says exactly which; `unmeasured` in the outputs' report says
    # of those that a run has not why (metric -> reason);
    # ON_ACCELERATOR = True, for a stage that runs on the accelerators that the recipe asks for;
    # refresh(outputs, home) -> Outputs | None, for a result that the world can outdate (an engine that is gone)

    def estimate(self, config: Any) -> Resources: ...
    def run(self, config: Any, context: Context) -> Outputs: ...
