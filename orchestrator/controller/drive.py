"""Drives a run: stage by stage, on Ray, from inside a detached actor that the command does not own.

It ends with the run, or when the run needs other places for its next stage, or must give these up. Every step is in the
store before the next begins, so that the next driver goes on where this one was.
"""

import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from orchestrator.controller import gates, needs, reporting, retries
from orchestrator.controller.execute import WORKER_GRACE_S
from orchestrator.controller.reuse import reusable
from orchestrator.controller.spending import Clock, Watch
from orchestrator.errors import InputError, OrchError, StaleClaimError, StoreAwayError
from orchestrator.planner.plan import Plan, PlannedStage
from orchestrator.stages.base import Outputs
from orchestrator.store.records import ENDED, Allocation, Claim, StageRun
from orchestrator.store.store import Store

Executor = Callable[[Store, Claim, PlannedStage], dict[str, Any] | None]
"""Executes one attempt of a stage: its outputs as JSON, or None when the run was cancelled, or its budget used up."""
End = Literal["succeeded", "cancelled", "yielded", "elsewhere"]
"""How the stages ended; elsewhere: the next one needs other places."""
_STOP_MARGIN_S = 30.0
"""For what a stage does after its worker has ended, before its process is killed."""
_LONGEST_PAUSE_S, _PAUSE_S = 30.0, 0.25
"""Before a stage whose process died is tried again in the same places."""


def drive(
    home: str,
    run: str,
    on_ray: Executor | None = None,
    clock: Clock = time.time,
    *,
    attempt: int | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Execute what the store says of this run, as far as these places go; errors end up there, none is raised.

    `attempt` is that of the run's allocation; without one every place is as good as any. `on_ray` executes one stage;
    `clock` is what the budget is judged by.
    """
    store, held = Store(Path(home), clock=clock), None
    if attempt is not None:
        held = next(found for found in store.allocations.of(run) if found.attempt == attempt)
        store = store.holding(held)
    state = store.run(run).state
    if state in ENDED:  # cancelled before we began, or we were restarted after our last step
        return
    if state == "queued":
        store.move_run(run, "running")
    failure: OrchError | None = None
    end: End = "cancelled"
    try:
        end = _Drive(store, run, held, on_ray, clock, sleep).stages()
    except StaleClaimError as error:  # another driver has the run now, and what becomes of it is for that one to say
        print(error, file=sys.stderr)
        return
    except StoreAwayError as error:  # no failure of the run: the controller finds it without a driver
        print(error, file=sys.stderr)
        return
    except OrchError as error:
        failure = error
    except Exception as error:  # whatever happens, the run must not stay `running` with nobody behind it
        traceback.print_exc()
        failure = OrchError(f"the driver failed in a way that nobody foresaw: {error!r}")
    if held is not None and failure is None and end in ("yielded", "elsewhere"):
        _requeue(store, held, end)
    else:
        _finish(store, run, "failed" if failure else end, failure)


def drive_held(home: str, run: str, attempt: int) -> None:
    """`drive` in the places of this attempt."""
    drive(home, run, attempt=attempt)


def _requeue(store: Store, held: Allocation, end: str) -> None:
    if end == "yielded":
        reason = next((found.reason for found in store.allocations.of(held.owner) if found.name == held.name), None)
        store.allocations.end(held, "yielded", reason or "it was asked to", run="queued")
    else:
        store.allocations.end(held, "finished", "its next stages need other places", run="queued")


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


class _Drive:
    """Goes through the stages of a run in one driver's places."""

    def __init__(
        self,
        store: Store,
        run: str,
        held: Allocation | None,
        on_ray: Executor | None,
        clock: Clock,
        sleep: Callable[[float], None],
    ) -> None:
        self._store, self._run, self._held, self._sleep = store, run, held, sleep
        self._plan = Plan.model_validate(store.run(run).plan)
        self._watch = Watch(self._plan, store.events(run=run), clock)
        self._execute = on_ray or self._on_ray

    def stages(self) -> End:
        """All stages in their order, as far as they go. Raises BudgetError."""
        for planned in self._plan.stages:
            if end := self._unwanted():
                return end
            self._watch.enforce(self._run)
            outputs = self._made_before(planned)
            if outputs is None and self._held is not None and not needs.fits(planned, self._held.bundle):
                return "elsewhere"
            if outputs is None:
                outputs = self._make(planned)
            if outputs is None:
                end = self._unwanted()
                if end is None:
                    self._watch.enforce(self._run)
                return end or "cancelled"
            self._judge(planned, outputs)
        return "succeeded"

    def _judge(self, planned: PlannedStage, outputs: Outputs) -> None:
        verdicts = gates.judge(self._plan.gates, planned.name, outputs.metrics, outputs.report.get("unmeasured"))
        for verdict in verdicts:
            self._store.record("gate", run=self._run, stage=planned.name, **verdict.model_dump())
        gates.enforce(verdicts)

    def _made_before(self, planned: PlannedStage) -> Outputs | None:
        """The stage's outputs, this run's own or an earlier run's; None when it must run, and is pending then."""
        store, run = self._store, self._run
        mine = _row(store, run, planned.name)
        made = mine if mine.state in needs.DONE else store.finished_stage(planned.digest)
        if made is not None:
            outputs = reusable(planned.name, Outputs.model_validate(made.outputs), store.home)
            if outputs is not None:
                if mine.state == "pending":
                    store.reuse_stage(run, planned.name, outputs.model_dump())
                return outputs
        if mine.state != "pending":  # our own predecessor died with it, or the world has moved on since
            store.reset_stage(run, planned.name, f"it was {mine.state} when its driver began")
        return None

    def _make(self, planned: PlannedStage) -> Outputs | None:
        """The outputs of the stage; None when it was stopped."""
        while True:
            claim = self._store.claim_stage(self._run, planned.name)
            try:
                made = self._execute(self._store, claim, planned)
            except OrchError as error:
                self._again(claim, error)
                if self._unwanted():
                    return None
                continue
            stopped = "pending" if self._unwanted() == "yielded" else "cancelled"
            self._store.end_stage(claim, stopped if made is None else "succeeded", outputs=made)
            return None if made is None else Outputs.model_validate(made)

    def _again(self, claim: Claim, error: OrchError) -> None:
        """Returns when the stage may be tried again; raises what it failed with when it may not."""
        store, run, stage = self._store, self._run, claim.stage
        following = retries.after(retries.earlier(store.events(run=run), stage), error)
        if isinstance(following, retries.GiveUp):
            store.end_stage(claim, "failed", error=following.error)
            raise following.error from error
        store.end_stage(claim, "pending", error=error)
        suspect = f" (it hung there twice: look at node {following.avoid})" if following.avoid else ""
        store.record("log", run=run, stage=stage, message=f"{error.message.splitlines()[0]}; trying again{suspect}")
        waited = 0.0
        while waited < min(following.wait_s, _LONGEST_PAUSE_S) and not self._unwanted():
            self._sleep(_PAUSE_S)
            waited += _PAUSE_S

    def _on_ray(self, store: Store, claim: Claim, planned: PlannedStage) -> dict[str, Any] | None:
        """The stage's outputs, or None when the run was cancelled, had to yield, or used up its budget meanwhile."""
        from orchestrator.ray import stage

        made: dict[str, Any] | None = stage.run(
            f"{claim.run}.{planned.name}.{claim.fence}",
            "orchestrator.controller.execute",
            (str(store.home), claim.run, planned.name, claim.fence),
            num_cpus=planned.resources.num_cpus,
            num_gpus=planned.resources.num_gpus,
            unwanted=self._should_stop,
            grace_s=WORKER_GRACE_S + _STOP_MARGIN_S,
        )
        return made

    def _should_stop(self) -> bool:
        try:
            return self._unwanted() is not None or self._watch.reason() is not None
        except StoreAwayError:  # the stage goes on; whether it still may is for the renewal of the places to find out
            return False

    def _unwanted(self) -> Literal["cancelled", "yielded"] | None:
        """What the run is to end with now, if it must not go on here."""
        if self._store.run_state(self._run) == "cancelling":
            return "cancelled"
        if self._held is not None and self._store.allocations.state(self._held) == "yielding":
            return "yielded"
        return None


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
