"""A stage whose store goes away for a while."""

import threading
from pathlib import Path
from typing import Any

import pytest

from orchestrator.controller.execute import run_worker
from orchestrator.controller.telling import recorder
from orchestrator.errors import WorkerDiedError
from orchestrator.store.store import Store
from tests.postgresql import Server

WORKER = """#!/bin/sh
for step in 1 2 3 4 5; do echo '{"kind": "progress", "step": '$step', "steps": 5}'; done
echo '{"done": 5}' > "$4"
"""


@pytest.fixture
def store(postgresql: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("ORCH_STORE", postgresql.fresh())
    return Store(tmp_path / "home")


@pytest.fixture
def worker(tmp_path: Path) -> list[str]:
    (tmp_path / "python").write_text(WORKER)
    (tmp_path / "python").chmod(0o755)
    return [str(tmp_path / "python")]


def test_no_event_is_lost_while_the_server_is_restarted(
    store: Store, postgresql: Server, worker: list[str], tmp_path: Path
) -> None:
    emit, restarting = recorder(store, "r1", "train"), threading.Thread(target=postgresql.start)

    def crashing(kind: str, /, **data: Any) -> None:
        if data["step"] == 3:
            postgresql.stop()
            restarting.start()
        emit(kind, **data)

    assert run_worker("merge", {}, tmp_path, crashing, python=worker) == {"done": 5}
    restarting.join()
    assert [event.data["step"] for event in store.events(run="r1")] == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_a_stage_that_is_cut_off_ends_as_one_whose_node_went_away(store: Store, postgresql: Server) -> None:
    emit = recorder(store, "r1", "train", outage_s=0.0)
    emit("progress", step=1)
    postgresql.stop()
    try:
        with pytest.raises(WorkerDiedError, match="cut off from the store") as caught:
            emit("progress", step=2)
    finally:
        postgresql.start()
    assert caught.value.cause == "node"
