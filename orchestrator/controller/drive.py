"""Drives a run to its end: stage by stage, on Ray, from inside a detached actor that the command does not own.

Every step is in the store before the next begins, so that a driver which is started again goes on where it was.
"""

import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.controller import gates, reporting
from orchestrator.controller.reuse import reusable
from orchestrator.controller.spending import Clock, Watch
from orchestrator.errors import InputError, OrchError, StaleClaimError, WorkerDiedError
from orchestrator.planner.plan import Plan, PlannedStage
from orchestrator.ray import launch
from orchestrator.stages.base import Outputs
from orchestrator.store.records import ENDED, StageRun
from orchestrator.store.store import Store

Executor = Callable[[Store, str, PlannedStage], dict[str, Any] | None]
"""Executes one stage of a run: its outputs as JSON, or None when the run was cancelled, or its budget used up."""
MAX_ATTEMPTS = 4
"""Of one stage whose process dies; an error that the stage itself reports is not tried again."""


def drive(home: str, run: str, on_ray: Executor | None = None, clock: Clock = time.time) -> None:
    """Execute what the store says of this run; errors end up there, none is raised.

    `on_ray` executes one stage; `clock` is what the budget is judged by.
    """
    store = Store(Path(home), clock=clock)
    state = store.run(run).state
    if state in ENDED:  # cancelled before we began, or we were restarted after our last step
        return
    if state == "queued":
        store.move_run(run, "running")
    failure: OrchError | None = None
    finished = False
    try:
        finished = _stages(store, run, on_ray, clock)
    except StaleClaimError as error:  # another driver has the run now, and what becomes of it is for that one to say
        print(error, file=sys.stderr)
        return
    except OrchError as error:
        failure = error
    except Exception as error:  # whatever happens, the run must not stay `running` with nobody behind it
        traceback.print_exc()
        failure = OrchError(f"the driver failed in a way that nobody foresaw: {error!r}")
    _finish(store, run, "failed" if failure else "succeeded" if finished else "cancelled", failure)


def _finish(store: Store, run: str, state: str, failure: OrchError | None) -> None:
    if state != "succeeded":
        _best_effort(store, run, lambda: _stop_candidate(store, run))
    _best_effort(store, run, lambda: reporting.write(store, run, ended=state, error=failure))
    try:
        store.move_run(run, state, error=failure)
    except InputError:  # the disk was full; the store has just given up its spare file
        store.move_run(run, state, error=failure)


def _best_effort(store: Store, run: str, step: Callable[[], object]) -> None:
    """What must not keep a run from ending; its failure is an event."""
    try:
        step()
    except Exception as error:
        traceback.print_exc()
        store.record("log", run=run, message=f"while ending: {error!r}")


def _stages(store: Store, run: str, on_ray: Executor | None, clock: Clock) -> bool:
    """All stages in their order; False when the run was cancelled on the way. Raises BudgetError."""
    plan = Plan.model_validate(store.run(run).plan)
    watch = Watch(plan, store.events(run=run), clock)
    execute = on_ray or partial(_on_ray, watch)
    for planned in plan.stages:
        if _cancelled(store, run):
            return False
        watch.enforce(run)
        outputs = _outputs(store, run, planned, execute)
        if outputs is None:
            if not _cancelled(store, run):
                watch.enforce(run)
            return False
        verdicts = gates.judge(plan.gates, planned.name, outputs.metrics, outputs.report.get("unmeasured"))
        for verdict in verdicts:
            store.record("gate", run=run, stage=planned.name, **verdict.model_dump())
        gates.enforce(verdicts)
    return True


def _outputs(store: Store, run: str, planned: PlannedStage, on_ray: Executor) -> Outputs | None:
    """The stage's outputs: this run's own, an earlier run's, or made now; None when the run was cancelled."""
    mine = _row(store, run, planned.name)
    made = mine if mine.state in ("succeeded", "reused") else store.finished_stage(planned.digest)
    if made is not None:
        outputs = reusable(planned.name, Outputs.model_validate(made.outputs), store.home)
        if outputs is not None:
            if mine.state == "pending":
                store.reuse_stage(run, planned.name, outputs.model_dump())
            return outputs
    if mine.state != "pending":  # our own predecessor died with it, or the world has moved on since
        store.reset_stage(run, planned.name, f"it was {mine.state} when its driver began")
    return _make(store, run, planned, on_ray)


def _make(store: Store, run: str, planned: PlannedStage, on_ray: Executor) -> Outputs | None:
    for attempt in range(1, MAX_ATTEMPTS + 1):
        claim = store.claim_stage(run, planned.name)
        try:
            made = on_ray(store, run, planned)
        except WorkerDiedError as error:
            if attempt == MAX_ATTEMPTS:
                store.end_stage(claim, "failed", error=error)
                raise
            store.end_stage(claim, "pending", error=error)
            store.record("log", run=run, stage=planned.name, message=f"{error.message.splitlines()[0]}; trying again")
            continue
        except OrchError as error:
            store.end_stage(claim, "failed", error=error)
            raise
        store.end_stage(claim, "cancelled" if made is None else "succeeded", outputs=made)
        return None if made is None else Outputs.model_validate(made)
    raise AssertionError("the last attempt returns or raises")


def _on_ray(watch: Watch, store: Store, run: str, planned: PlannedStage) -> dict[str, Any] | None:
    """The stage's outputs, or None when the run was cancelled, or its budget used up, while it ran."""
    made: dict[str, Any] | None = launch.run_in_group(
        f"{run}.{planned.name}",
        "orchestrator.controller.execute:execute",
        *(str(store.home), run, planned.name),
        num_cpus=planned.resources.num_cpus,
        num_gpus=planned.resources.num_gpus,
        cancelled=lambda: _cancelled(store, run) or watch.reason() is not None,
        waiting=lambda message: store.record("log", run=run, stage=planned.name, message=message),
    )
    return made


def _cancelled(store: Store, run: str) -> bool:
    return store.run(run).state == "cancelling"


def _row(store: Store, run: str, stage: str) -> StageRun:
    return next(row for row in store.stage_runs(run) if row.stage == stage)


def _stop_candidate(store: Store, run: str) -> None:
    """A candidate that did not pass must not hold resources; the release that serves is left alone."""
    plan = Plan.model_validate(store.run(run).plan)
    deploy = plan.stage("deploy")
    for release in store.releases(plan.service) if plan.service and deploy else []:
        mine = deploy is not None and release.digest == deploy.digest
        if mine and release.promoted is None and release.state in ("starting", "warm"):
            store.move_release(release, "rejected", reason=f"run {run} did not end well")
