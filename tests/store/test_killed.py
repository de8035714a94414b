"""Writers that are killed with SIGKILL in the middle of whatever they do: no state without its event, nothing half."""

import contextlib
import multiprocessing
import os
import time
from itertools import count
from pathlib import Path

import pytest

from orchestrator.errors import OrchError
from orchestrator.store.check import check
from orchestrator.store.store import Store

ROUNDS = 6
WRITTEN = 60
"""Events between two kills."""
_ROUND_S = 30.0


def _write(home: Path) -> None:
    """Run after run, and between them attempts of one stage that all writers fight for."""
    store = Store(home)
    for number in count():
        run = f"{os.getpid()}-{number}"
        store.create_run(run, "demo", {}, [("data", "d")])
        store.move_run(run, "running")
        store.end_stage(store.claim_stage(run, "data"), "succeeded", outputs={"artifacts": {}})
        store.move_run(run, "succeeded")
        try:
            store.end_stage(store.claim_stage("shared", "data"), "pending")
        except OrchError:  # another one has it, or was killed while it had it
            store.record("busy")


def _events(store: Store, beyond: int) -> None:
    deadline = time.monotonic() + _ROUND_S
    while len(store.events(after=beyond)) < WRITTEN:
        assert time.monotonic() < deadline, "the writers do not get on"
        time.sleep(0.01)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_whoever_is_killed_states_and_events_agree(tmp_path: Path) -> None:
    store, context = Store(tmp_path), multiprocessing.get_context("fork")
    store.create_run("shared", "demo", {}, [("data", "d")])
    for _ in range(ROUNDS):
        last = store.events()[-1].id
        writers = [context.Process(target=_write, args=(tmp_path,)) for _ in range(2)]
        for writer in writers:
            writer.start()
        _events(store, last)
        for writer in writers:
            writer.kill()
        for writer in writers:
            writer.join()
            assert writer.exitcode == -9, "it was still at work"
        with contextlib.suppress(OrchError):  # it was between two attempts
            store.reset_stage("shared", "data", "its writer was killed")
    assert check(store.database).problems == []
    attempts = [e for e in store.events(run="shared") if e.kind == "stage.running"]
    assert [event.data["attempt"] for event in attempts] == list(range(1, len(attempts) + 1))
    assert store.stage_runs("shared")[0].attempts == len(attempts) > 0
