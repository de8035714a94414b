"""The store on a real SQLite file: moves, events, reuse, releases, and two writers at once."""

import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from orchestrator.errors import InputError, NotAllowedError, OrchError
from orchestrator.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, clock=iter(range(1000)).__next__)


def _run(store: Store, run: str = "r1") -> str:
    store.create_run(run, "demo", {"stages": []}, [("data", "d" * 64), ("train", "t" * 64)])
    return run


def test_a_run_moves_only_along_the_table(store: Store) -> None:
    run = _run(store)
    store.move_run(run, "running")
    with pytest.raises(OrchError, match="cannot go from 'running' to 'queued'"):
        store.move_run(run, "queued")
    store.move_run(run, "failed", error=InputError("bad row 3"))
    assert store.run(run).error == {"type": "InputError", "message": "bad row 3", "next_step": None}


def test_every_move_writes_its_event_in_the_same_order(store: Store) -> None:
    run = _run(store)
    store.move_run(run, "running")
    store.move_stage(run, "data", "running")
    assert [event.kind for event in store.events(run=run)] == ["run.queued", "run.running", "stage.running"]
    assert [event.kind for event in store.events(run=run, after=2)] == ["stage.running"]


def test_a_finished_stage_is_found_by_its_digest_while_its_artifacts_exist(store: Store, tmp_path: Path) -> None:
    run, made = _run(store), tmp_path / "rows.jsonl"
    made.write_text("{}\n")
    store.move_stage(run, "data", "running")
    store.move_stage(run, "data", "succeeded", outputs={"artifacts": {"rows": str(made)}})
    found = store.finished_stage("d" * 64)
    assert found is not None
    assert found.run == run
    assert store.artifacts(run)[0]["bytes"] == 3
    made.unlink()
    assert store.finished_stage("d" * 64) is None


def test_a_release_is_numbered_once_per_digest(store: Store) -> None:
    assert store.get_or_create_release("svc", "aa", "r1", {}).number == 1
    assert store.get_or_create_release("svc", "bb", "r2", {}).number == 2
    assert store.get_or_create_release("svc", "aa", "r3", {}).number == 1


def test_a_switch_is_seen_by_a_watcher_of_another_connection(store: Store, tmp_path: Path) -> None:
    release = store.get_or_create_release("svc", "aa", "r1", {})
    store.move_release(release, "starting")
    store.move_release(release, "warm", url="http://127.0.0.1:1/v1")
    changed = Store(tmp_path).watch()
    assert changed()
    assert not changed()
    store.switch("svc", 1, expected=None, kind="release.promoted", reason=None)
    assert changed()
    assert store.routes()["services"] == {"svc": {"current": 1}}


def _record_many(home: Path) -> None:
    store = Store(home)
    for number in range(50):
        store.record("tick", number=number)


def test_two_processes_write_at_once_and_nothing_is_lost(store: Store, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_record_many, args=(tmp_path,)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(store.events()) == 100


def test_a_store_of_a_newer_version_is_refused(store: Store, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "orch.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(InputError, match="newer version"):
        Store(tmp_path)


def test_a_home_that_is_a_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(InputError, match=r"cannot use .*home as the store"):
        Store(tmp_path / "home")


def test_a_switch_that_somebody_else_made_obsolete_changes_nothing(store: Store) -> None:
    release = store.get_or_create_release("svc", "aa", "r1", {})
    with pytest.raises(NotAllowedError, match="no engine answers"):
        store.switch("svc", 1, expected=None, kind="release.promoted", reason=None)
    store.move_release(release, "starting")
    store.move_release(release, "warm", url="http://127.0.0.1:1/v1")
    with pytest.raises(NotAllowedError, match="switched by somebody else"):
        store.switch("svc", 1, expected=7, kind="release.promoted", reason=None)
    assert store.service("svc").current is None
