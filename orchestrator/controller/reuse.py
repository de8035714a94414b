"""Whether what an earlier run made can stand in for running a stage again."""

from pathlib import Path

from orchestrator import plugins, stages
from orchestrator.stages.base import Outputs


def reusable(stage: str, outputs: Outputs, home: Path) -> Outputs | None:
    """The outputs as they are now; None where the world has moved on (an engine that is gone, another release)."""
    refresh = getattr(plugins.load(stages, stage), "refresh", None)
    found: Outputs | None = refresh(outputs, home) if refresh else outputs
    return found
