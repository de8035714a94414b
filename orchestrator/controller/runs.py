"""Starting, resuming and cancelling runs: each is a change of state in the store, which the controller obeys."""

import secrets
import socket
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from orchestrator.controller import process, spending
from orchestrator.controller.wanted import LOCAL, host_of
from orchestrator.digests import digest_value
from orchestrator.errors import InfrastructureError, InputError
from orchestrator.planner.plan import Plan
from orchestrator.ray import connect
from orchestrator.store.records import ENDED, ENGINE, Run
from orchestrator.store.store import Store

_START_S = 60.0
"""A queued run's command may take this long to start the controller."""


def create(store: Store, plan: Plan, forced: Iterable[str] = ()) -> str:
    """A queued run of this plan; its id. `forced` stages, and all after the first of them, run again."""
    run = f"{plan.recipe}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    plan = _forced(plan, run, set(forced))
    store.create_run(run, plan.recipe, plan.model_dump(mode="json"), [(s.name, s.digest) for s in plan.stages])
    license = plan.forecast.license if plan.forecast else None
    if license and license.accepted:
        store.record("license.risk_accepted", run=run, who=license.accepted.who, message=license.accepted.reason)
    return run


def launch(store: Store, run: str) -> None:
    """See to it that there is a controller, which places the queued run; returns at once.

    Raises InfrastructureError when the cluster does not listen, or the controller does not begin; the run is then
    failed and can be resumed.
    """
    plan = Plan.model_validate(store.run(run).plan)
    try:
        connect.check_listens(plan.cluster.address)
        process.ensure(store, plan.cluster.address)
    except InfrastructureError as error:
        store.move_run(run, "failed", error=error)
        raise
    except KeyboardInterrupt:
        cancel(store, run)
        raise


def is_reusable(plan: Plan) -> bool:
    """Whether every stage has run before, so that nothing needs to start."""
    return all(stage.reused_from for stage in plan.stages)


def cancel(store: Store, run: str) -> None:
    """Ask a run to stop. Raises InputError when it has ended already."""
    state = store.run(run).state
    if state == "queued" or (state == "running" and is_lost(store, store.run(run))):
        store.move_run(run, "cancelling") if state == "running" else None
        _end(store, run, "cancelled")
    elif state == "running":
        store.move_run(run, "cancelling")
    elif state != "cancelling":
        raise InputError(f"{run} has {state} already", next_step=f"`orch status {run}` shows it")


def resume(store: Store, run: str, overrides: Sequence[str] = ()) -> None:
    """Queue a failed, cancelled or lost run again; its finished stages stand. Raises InputError for any other.

    `overrides` change its budget, such as `budget.max_cost_usd=60`.
    """
    found = store.run(run)
    if is_lost(store, found):
        mark_lost(store, found)
    if store.run(run).state not in ("failed", "cancelled"):
        raise InputError(
            f"{run} is {found.state}: only a failed or cancelled run is resumed", next_step="`orch status`"
        )
    if overrides:
        plan = spending.raised(Plan.model_validate(found.plan), list(overrides))
        store.change_plan(run, plan.model_dump(mode="json"), reason=" ".join(overrides))
    for stage in store.stage_runs(run):
        if stage.state in ("failed", "cancelled"):
            store.reset_stage(run, stage.stage, "the run is resumed")
    store.move_run(run, "queued")


def is_lost(store: Store, run: Run) -> bool:
    """Whether a run is said to go on while this machine has neither its Ray nor a controller that would start it."""
    if run.state in ENDED or Plan.model_validate(run.plan).cluster.address != LOCAL or _is_elsewhere(store, run.id):
        return False
    if connect.address_of_head(store.home) or process.running(store):
        return False
    starting = run.state == "queued" and time.time() - store.events(run=run.id)[-1].time < _START_S
    return not starting


def _is_elsewhere(store: Store, run: str) -> bool:
    """Whether it was started on another machine of the team, whose own Ray cannot be looked at from here."""
    return store.is_shared and host_of(store.run(run).owner) != socket.gethostname()


def mark_lost(store: Store, run: Run) -> None:
    """Say so in the store: the run failed, and can be resumed."""
    for stage in store.stage_runs(run.id):
        if stage.state == "running":
            store.reset_stage(run.id, stage.stage, "Ray was stopped while it ran")
    error = InfrastructureError("Ray was stopped while the run was going on", next_step=f"`orch resume {run.id}`")
    _end(store, run.id, "failed", error)


def _end(store: Store, run: str, state: str, error: InfrastructureError | None = None) -> None:
    """End a run that nobody drives, and take its places back."""
    held = store.allocations.current(run)
    if held is not None:
        store.allocations.end(held, "stopped", "nothing runs there any more", run=state, error=error)
    else:
        store.move_run(run, state, error=error)


def _forced(plan: Plan, run: str, forced: set[str]) -> Plan:
    """Give the forced stages, and all after them, digests that no earlier run has."""
    unknown = forced - {stage.name for stage in plan.stages}
    if unknown:
        names = ", ".join(stage.name for stage in plan.stages)
        raise InputError(f"--force {', '.join(sorted(unknown))}: the recipe has no such stage (it has {names})")
    found, again = [], False
    for stage in plan.stages:
        again = again or stage.name in forced
        update = {"digest": digest_value([stage.digest, run]), "reused_from": None} if again else {}
        found.append(stage.model_copy(update=update))
    return plan.model_copy(update={"stages": found})


def stop_everything(store: Store) -> bool:
    """Stop this machine's controller and Ray, and say in the store what that ended; False when nothing ran."""
    process.stop(store)  # first: it must not start anything again
    stopped = connect.stop_head(store.home)
    for run in store.unfinished():
        found = store.run(run.id)
        if is_lost(store, found):
            mark_lost(store, found)
    for release in store.releases():
        if release.state in ("starting", "warm") and not _is_elsewhere(store, release.run):
            store.move_release(release, "stopped", reason="orch down")
        held = store.allocations.current(f"{ENGINE}{release.name}")
        if held is not None and held.cluster == LOCAL and not _is_elsewhere(store, release.run):
            store.allocations.end(held, "stopped", "orch down")
    return stopped
