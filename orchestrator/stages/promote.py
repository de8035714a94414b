"""promote: makes the candidate the release that the service's name stands for, once every gate has passed.

The release before it stays warm for a rollback; older ones are stopped.
"""

from pathlib import Path

from orchestrator.config import Model
from orchestrator.errors import GateFailedError
from orchestrator.planner.plan import Gate
from orchestrator.serving import releases
from orchestrator.stages.base import Context, Outputs, Resources
from orchestrator.store.store import Store

LIBRARIES: tuple[str, ...] = ()
METRICS: tuple[str, ...] = ()


class Config(Model):
    """What the stage reads from the recipe."""

    service: str
    """The stable name."""
    gates: list[Gate] = []
    """All gates of the recipe: they were judged stage by stage before; a changed one is another promotion."""


def estimate(config: Config) -> Resources:
    """It writes one row."""
    return Resources(num_cpus=0.1)


def run(config: Config, context: Context) -> Outputs:
    """Raises GateFailedError for a release that somebody rolled back: a rerun must not undo that decision."""
    store = Store(context.home)
    release = store.release(config.service, context.inputs["deploy"].report["number"])
    if release.withdrawn:
        raise GateFailedError(
            f"{release.name} was rolled back and is not promoted again by a rerun",
            next_step=f"`orch promote {config.service} --to {release.number}` if it should serve after all",
        )
    releases.promote(store, release, reason=f"run {context.run}: every gate passed")
    retired = [f"{config.service}@{number}" for number in releases.retire(store, config.service)]
    return Outputs(report={"service": config.service, "number": release.number, "retired": retired})


def refresh(outputs: Outputs, home: Path) -> Outputs | None:
    """None when another release serves now, so that the stage must run again."""
    current = Store(home).service(outputs.report["service"]).current
    return outputs if current == outputs.report["number"] else None
