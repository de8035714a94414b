"""What a run needs next (pure): the places for its next stages, and how long it will hold them.

A run does not hold accelerators while it prepares data. It goes through the queue again when the number of accelerators
changes: stages that need the same number follow each other in the same places.
"""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import takewhile

from orchestrator.planner.estimate import Estimate
from orchestrator.planner.plan import Plan, PlannedStage
from orchestrator.store.records import Bundle

UNKNOWN_S = 3600.0
"""Assumed for a stage of which nothing is known."""
DONE = frozenset({"succeeded", "reused"})


@dataclass(frozen=True)
class Need:
    """Of a run, for its next stages."""

    stages: tuple[str, ...]
    bundle: Bundle
    seconds: float
    """Expected."""


def need(plan: Plan, done: Collection[str]) -> Need:
    """What comes after the stages that are `done`; all of them again where none is left to do, since a stage may find
    that it does not stand any more."""
    left = list(_without(plan.stages, done)) or plan.stages
    same = list(takewhile(lambda stage: stage.resources.num_gpus == left[0].resources.num_gpus, left))
    return Need(
        stages=tuple(stage.name for stage in same),
        bundle=Bundle(num_cpus=max(stage.resources.num_cpus for stage in same), num_gpus=same[0].resources.num_gpus),
        seconds=sum(_seconds(plan, stage) for stage in same),
    )


def fits(stage: PlannedStage, bundle: Bundle) -> bool:
    """Whether these places are for that stage: enough cores, and neither too few nor idle accelerators."""
    return stage.resources.num_gpus == bundle.num_gpus and stage.resources.num_cpus <= bundle.num_cpus


def _without(stages: list[PlannedStage], done: Collection[str]) -> list[PlannedStage]:
    """From the first stage on that is not done."""
    first = next((index for index, stage in enumerate(stages) if stage.name not in done), len(stages))
    return stages[first:]


def _seconds(plan: Plan, stage: PlannedStage) -> float:
    found = plan.forecast.stage(stage.name) if plan.forecast else None
    if found is None:
        return 1.0 if stage.reused_from else UNKNOWN_S
    return found.time.value if isinstance(found.time, Estimate) else UNKNOWN_S
