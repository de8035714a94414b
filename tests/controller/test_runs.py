"""Runs of a team: whose Ray a run was on decides who may say that it is lost."""

from pathlib import Path

import pytest

from orchestrator.clusters.cluster import Cluster
from orchestrator.controller import runs
from orchestrator.planner.plan import Plan
from orchestrator.store import identity
from orchestrator.store.store import Store
from tests.postgresql import Server


def _started(store: Store, run: str) -> None:
    plan = Plan(recipe="demo", path="demo.yaml", directory="/", cluster=Cluster(name="here", address="local"),
                accelerator=None, stages=[], gates=[], service=None, obstacles=[])  # fmt: skip
    store.create_run(run, "demo", plan.model_dump(mode="json"), [])
    store.move_run(run, "running")
    release = store.get_or_create_release("svc", run, run, {})
    store.move_release(release, "starting")


@pytest.mark.parametrize("shared", [True, False])
def test_down_ends_what_this_machine_runs_and_nothing_of_another_one(
    shared: bool, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shared:
        server: Server = request.getfixturevalue("postgresql")
        monkeypatch.setenv("ORCH_STORE", server.fresh())
    store = Store(tmp_path)
    _started(store, "mine")
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(identity.socket, "gethostname", lambda: "other")
        _started(store, "theirs")
    runs.stop_everything(store)
    assert store.run("mine").state == "failed"
    assert store.run("theirs").state == ("running" if shared else "failed")
    states = [release.state for release in store.releases("svc")]
    assert states == ["stopped", "starting" if shared else "stopped"]
