"""Drives a run to its end: stage by stage, on Ray, from inside a detached actor that the command does not own.

Every step is in the store before the next begins, so that a driver which is started again goes on where it was.
"""

from pathlib import Path
from typing import Any

from orchestrator.controller import gates, reporting
from orchestrator.controller.reuse import reusable
from orchestrator.errors import OrchError, WorkerDiedError
from orchestrator.planner.plan import Plan, PlannedStage
from orchestrator.ray import launch
from orchestrator.stages.base import Outputs
from orchestrator.store.records import StageRun
from orchestrator.store.store import Store

MAX_ATTEMPTS = 4
"""Of one stage whose process dies; an error that the stage itself reports is not tried again."""


def drive(home: str, run: str) -> None:
    """Execute what the store says of this run. Errors end up in the store, none is raised."""
    store = Store(Path(home))
    if store.run(run).state == "queued":
        store.move_run(run, "running")
    try:
        finished = _stages(store, run)
        if not finished:
            _stop_candidate(store, run)
        reporting.write(store, run, ended="succeeded" if finished else "cancelled")
        store.move_run(run, "succeeded" if finished else "cancelled")
    except OrchError as error:
        _stop_candidate(store, run)
        reporting.write(store, run, ended="failed", error=error)
        store.move_run(run, "failed", error=error)
    except Exception as error:  # whatever happens, the run must not stay `running` with nobody behind it
        store.move_run(run, "failed", error=OrchError(f"the driver failed in a way that nobody foresaw: {error!r}"))
        raise


def _stages(store: Store, run: str) -> bool:
    """All stages in their order; False when the run was cancelled on the way."""
    plan = Plan.model_validate(store.run(run).plan)
    for planned in plan.stages:
        if _cancelled(store, run):
            return False
        outputs = _outputs(store, run, planned)
        if outputs is None:
            return False
        verdicts = gates.judge(plan.gates, planned.name, outputs.metrics)
        for verdict in verdicts:
            store.record("gate", run=run, stage=planned.name, **verdict.model_dump())
        gates.enforce(verdicts)
    return True


def _outputs(store: Store, run: str, planned: PlannedStage) -> Outputs | None:
    """The stage's outputs: this run's own, an earlier run's, or made now; None when the run was cancelled."""
    mine = _row(store, run, planned.name)
    made = mine if mine.state in ("succeeded", "reused") else store.finished_stage(planned.digest)
    if made is not None:
        outputs = reusable(planned.name, Outputs.model_validate(made.outputs), store.home)
        if outputs is not None:
            if mine.state == "pending":
                store.move_stage(run, planned.name, "reused", outputs=outputs.model_dump())
            return outputs
    if mine.state == "running":  # our own predecessor died with it
        store.move_stage(run, planned.name, "pending")
    return _make(store, run, planned)


def _make(store: Store, run: str, planned: PlannedStage) -> Outputs | None:
    for attempt in range(1, MAX_ATTEMPTS + 1):
        store.move_stage(run, planned.name, "running")
        try:
            made = _on_ray(store, run, planned)
        except WorkerDiedError as error:
            if attempt == MAX_ATTEMPTS:
                store.move_stage(run, planned.name, "failed", error=error)
                raise
            store.move_stage(run, planned.name, "pending", error=error)
            store.record("log", run=run, stage=planned.name, message=f"{error.message.splitlines()[0]}; trying again")
            continue
        except OrchError as error:
            store.move_stage(run, planned.name, "failed", error=error)
            raise
        store.move_stage(run, planned.name, "cancelled" if made is None else "succeeded", outputs=made)
        return None if made is None else Outputs.model_validate(made)
    raise AssertionError("the last attempt returns or raises")


def _on_ray(store: Store, run: str, planned: PlannedStage) -> dict[str, Any] | None:
    """The stage's outputs, or None when the run was cancelled while it ran."""
    made: dict[str, Any] | None = launch.run_in_group(
        f"{run}.{planned.name}",
        "orchestrator.controller.execute:execute",
        *(str(store.home), run, planned.name),
        num_cpus=planned.resources.num_cpus,
        num_gpus=planned.resources.num_gpus,
        cancelled=lambda: _cancelled(store, run),
        waiting=lambda message: store.record("log", run=run, stage=planned.name, message=message),
    )
    return made


def _cancelled(store: Store, run: str) -> bool:
    return store.run(run).state == "cancelling"


def _row(store: Store, run: str, stage: str) -> StageRun:
    return next(row for row in store.stage_runs(run) if row.stage == stage)


def _stop_candidate(store: Store, run: str) -> None:
    """A candidate that did not pass must not hold resources; the release that serves is left alone."""
    deploy = next((row for row in store.stage_runs(run) if row.stage == "deploy" and row.outputs), None)
    if deploy is None:
        return
    report = Outputs.model_validate(deploy.outputs).report
    release = store.release(report["service"], report["number"])
    if release.promoted is None and release.state in ("starting", "warm"):
        store.move_release(release, "rejected", reason=f"run {run} did not end well")
