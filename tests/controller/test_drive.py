"""The driver over a real store: every state that a run can be found in leads to an end."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.clusters.cluster import Cluster
from orchestrator.controller import runs
from orchestrator.controller.drive import Executor
from orchestrator.controller.drive import drive as _drive
from orchestrator.errors import InfrastructureError, InputError, WorkerDiedError
from orchestrator.planner.plan import Gate, Plan, PlannedStage, Resources
from orchestrator.store.records import Claim
from orchestrator.store.store import Store

STAGES = ("prepare", "data", "train", "deploy", "benchmark")


def _plan(*gates: Gate) -> Plan:
    stages = [PlannedStage(name=n, config={}, digest=f"{n}-digest", resources=Resources()) for n in STAGES]
    return Plan(recipe="demo", path="demo.yaml", directory="/", cluster=Cluster(name="x", address="127.0.0.1:1"),
                accelerator=None, stages=stages, gates=list(gates), service="svc", obstacles=[])  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def drive(home: str, run: str, execute: Executor) -> None:
    _drive(home, run, execute, sleep=lambda _: None)


def _outputs(**metrics: float) -> dict[str, Any]:
    return {"artifacts": {}, "metrics": metrics, "report": {"service": "svc", "number": 1}}


def _works(done: list[str], fails: dict[str, list[Exception]] | None = None) -> Executor:
    """Executes a stage by noting it, after raising what `fails` still holds for it."""

    def execute(store: Store, claim: Claim, planned: PlannedStage) -> dict[str, Any] | None:
        done.append(planned.name)
        if fails and fails.get(planned.name):
            raise fails[planned.name].pop(0)
        if planned.name == "deploy":
            _warm(store, claim.run, planned.digest)
        return _outputs(errors=3.0)

    return execute


def _warm(store: Store, run: str, digest: str) -> None:
    release = store.get_or_create_release("svc", digest, run, {"port": 1})
    store.move_release(release, "starting")
    store.move_release(release, "warm", url="http://127.0.0.1:1/v1", model=release.name)


def _states(store: Store, run: str) -> dict[str, str]:
    return {row.stage: row.state for row in store.stage_runs(run)}


def test_all_stages_run_in_their_order(store: Store) -> None:
    run, done = runs.create(store, _plan()), list[str]()
    drive(str(store.home), run, _works(done))
    assert tuple(done) == STAGES
    assert store.run(run).state == "succeeded"


def test_a_stage_that_dies_is_tried_again_but_not_for_ever(store: Store) -> None:
    run, done = runs.create(store, _plan()), list[str]()
    drive(str(store.home), run, _works(done, {"train": [WorkerDiedError("killed")] * 2}))
    assert done.count("train") == 3
    assert store.run(run).state == "succeeded"
    run, done = runs.create(store, _plan(), ["train"]), []
    drive(str(store.home), run, _works(done, {"train": [WorkerDiedError("killed")] * 9}))
    assert done.count("train") == 4
    assert store.run(run).state == "failed"


@pytest.mark.parametrize("error", [InputError("bad rows"), InfrastructureError("out of memory"), ZeroDivisionError()])
def test_any_other_error_ends_the_run_at_once(store: Store, error: Exception) -> None:
    run, done = runs.create(store, _plan()), list[str]()
    drive(str(store.home), run, _works(done, {"data": [error]}))
    assert done == ["prepare", "data"]
    assert store.run(run).state == "failed"
    assert (store.home / "reports" / f"{run}.html").exists()


def test_a_run_that_was_cancelled_while_queued_does_nothing(store: Store) -> None:
    run, done = runs.create(store, _plan()), list[str]()
    runs.cancel(store, run)
    drive(str(store.home), run, _works(done))
    assert done == []
    assert store.run(run).state == "cancelled"


def test_a_cancelled_run_stops_before_the_next_stage_and_rejects_its_candidate(store: Store) -> None:
    run, done = runs.create(store, _plan()), list[str]()
    works = _works(done)

    def execute(store: Store, claim: Claim, planned: PlannedStage) -> dict[str, Any] | None:
        made = works(store, claim, planned)
        if planned.name == "deploy":
            runs.cancel(store, run)
        return made

    drive(str(store.home), run, execute)
    assert done[-1] == "deploy"
    assert store.run(run).state == "cancelled"
    assert store.release("svc", 1).state == "rejected"


def test_a_run_that_failed_after_its_deployment_resumes_by_deploying_again(store: Store) -> None:
    run, done = runs.create(store, _plan()), list[str]()
    drive(str(store.home), run, _works(done, {"benchmark": [InfrastructureError("no answers")]}))
    assert store.run(run).state == "failed"
    assert store.release("svc", 1).state == "rejected"
    runs.resume(store, run)
    done.clear()
    drive(str(store.home), run, _works(done))
    assert done == ["deploy", "benchmark"]
    assert store.run(run).state == "succeeded"
    assert all((row.ended or 0) >= (row.started or 0) for row in store.stage_runs(run))


def test_a_driver_that_is_started_again_goes_on_where_it_was(store: Store) -> None:
    run, done = runs.create(store, _plan()), list[str]()
    store.move_run(run, "running")
    claim = store.claim_stage(run, "prepare")
    store.end_stage(claim, "succeeded", outputs=_outputs())
    store.claim_stage(run, "data")
    drive(str(store.home), run, _works(done))
    assert done == ["data", "train", "deploy", "benchmark"]
    assert store.run(run).state == "succeeded"


def test_a_driver_that_was_overtaken_drops_its_result_and_leaves_the_run_alone(store: Store) -> None:
    run, done = runs.create(store, _plan()), list[str]()

    def execute(store: Store, claim: Claim, planned: PlannedStage) -> dict[str, Any]:
        if planned.name == "data" and "data" not in done:  # we hang, and a second driver starts meanwhile
            done.append("data")
            drive(str(store.home), run, _works(done))
        return _outputs(errors=99.0)

    drive(str(store.home), run, execute)
    assert done == ["data", *STAGES[1:]]
    assert store.run(run).state == "succeeded"
    row = store.stage_runs(run)[1]
    assert (row.attempts, row.outputs) == (2, _outputs(errors=3.0))


def test_a_failed_gate_ends_the_run(store: Store) -> None:
    run, done = runs.create(store, _plan(Gate(on="train.errors", max=1))), list[str]()
    drive(str(store.home), run, _works(done))
    assert done[-1] == "train"
    error = store.run(run).error
    assert error is not None
    assert error["type"] == "GateFailedError"


def test_a_report_that_cannot_be_written_does_not_keep_a_run_from_ending(store: Store) -> None:
    (store.home / "reports").write_text("a file where the folder should be")
    run = runs.create(store, _plan())
    drive(str(store.home), run, _works([]))
    assert store.run(run).state == "succeeded"
    assert any("while ending" in str(event.data.get("message")) for event in store.events(run=run))


def test_a_second_run_reuses_what_stands_and_a_forced_stage_runs_again(store: Store) -> None:
    drive(str(store.home), runs.create(store, _plan()), _works([]))
    done = list[str]()
    run = runs.create(store, _plan(), ["train"])
    drive(str(store.home), run, _works(done))
    assert done == ["train", "deploy", "benchmark"]
    assert _states(store, run)["data"] == "reused"
    first, second = (store.stage_runs(r.id)[2].digest[:16] for r in store.runs())
    assert first != second, "a forced stage has a folder of its own"
