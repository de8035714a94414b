"""Starting, resuming and cancelling runs. Only starting needs Ray; the rest is a change of state in the store."""

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.clusters.cluster import Cluster
from orchestrator.controller import spending
from orchestrator.digests import digest_value
from orchestrator.errors import InfrastructureError, InputError
from orchestrator.planner.plan import Plan
from orchestrator.ray import connect
from orchestrator.store.records import Run
from orchestrator.store.store import Store

_START_S = 150.0
"""A queued run's command may take this long to start Ray."""
_DRIVE = "orchestrator.controller.drive:drive"


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
    """Start the run's driver on the plan's cluster, from where it goes on without us; returns at once.

    Raises InfrastructureError when Ray cannot be started or reached; the run is then failed and can be resumed.
    """
    plan = Plan.model_validate(store.run(run).plan)
    try:
        with driver(store.home, plan.cluster):
            from orchestrator.ray.launch import start_detached

            start_detached(f"run-{run}", _DRIVE, str(store.home), run)
    except InfrastructureError as error:
        store.move_run(run, "failed", error=error)
        raise
    except KeyboardInterrupt:
        cancel(store, run)
        raise


@contextlib.contextmanager
def driver(home: Path, cluster: Cluster) -> Iterator[None]:
    """Be a driver of the cluster's Ray for a while; a local one is started when none runs.

    Raises InfrastructureError when the cluster does not answer, or does not see the folder of the store.
    """
    local = cluster.address == "local"
    address = connect.start_head(home, num_cpus=os.cpu_count() or 1) if local else cluster.address
    with connect.connected(address, home):
        if not local:
            _check_shared(home, cluster)
        yield


def _check_shared(home: Path, cluster: Cluster) -> None:
    """Stages write their events and artifacts to the store's folder, wherever they run."""
    from orchestrator.ray.launch import run_in_group

    marker, token = home / "shared-marker", secrets.token_hex(8)
    marker.write_text(token)
    seen = run_in_group("check-home", f"{__name__}:read_marker", str(marker), num_cpus=0, cancelled=lambda: False)
    if seen != token:
        raise InfrastructureError(
            f"the nodes of cluster {cluster.name!r} ({cluster.address}) do not see {home}",
            next_step="run orch on the cluster itself, or set ORCH_HOME to a folder that its nodes share",
        )


def read_marker(path: str) -> str | None:
    """The text of a file as a node of the cluster sees it."""
    with contextlib.suppress(OSError):
        return Path(path).read_text()
    return None


def is_reusable(plan: Plan) -> bool:
    """Whether every stage has run before, so that nothing needs to start."""
    return all(stage.reused_from for stage in plan.stages)


def cancel(store: Store, run: str) -> None:
    """Ask a run to stop. Raises InputError when it has ended already."""
    state = store.run(run).state
    if state == "queued" or (state == "running" and is_lost(store, store.run(run))):
        store.move_run(run, "cancelling") if state == "running" else None
        store.move_run(run, "cancelled")
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
    """Whether a run is said to be going on while the local Ray that it ran on is gone."""
    if run.state not in ("queued", "running", "cancelling"):
        return False
    if Plan.model_validate(run.plan).cluster.address != "local" or connect.address_of_head(store.home):
        return False
    if _is_elsewhere(store, run.id):
        return False
    starting = run.state == "queued" and time.time() - store.events(run=run.id)[-1].time < _START_S
    return not starting


def _is_elsewhere(store: Store, run: str) -> bool:
    """Whether it was started on another machine of the team, whose own Ray cannot be looked at from here."""
    return store.is_shared and store.run(run).owner.partition("@")[2] != socket.gethostname()


def mark_lost(store: Store, run: Run) -> None:
    """Say so in the store: the run failed, and can be resumed."""
    for stage in store.stage_runs(run.id):
        if stage.state == "running":
            store.reset_stage(run.id, stage.stage, "Ray was stopped while it ran")
    error = InfrastructureError("Ray was stopped while the run was going on", next_step=f"`orch resume {run.id}`")
    store.move_run(run.id, "failed", error=error)


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
    """Stop the local Ray, and say in the store what that ended; False when nothing ran."""
    stopped = connect.stop_head(store.home)
    for run in store.runs(limit=1000):
        if is_lost(store, run):
            mark_lost(store, run)
    for release in store.releases():
        if release.state in ("starting", "warm") and not _is_elsewhere(store, release.run):
            store.move_release(release, "stopped", reason="orch down")
    return stopped
