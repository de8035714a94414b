"""`check` finds what is wrong: in the states, in the log, in the artifacts; and nothing where nothing is."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from orchestrator.errors import InputError
from orchestrator.store.check import check
from orchestrator.store.store import Store


def worked(home: Path) -> Store:
    """A store in which much has happened, with the artifact `home/stages/data/rows.jsonl`."""
    store, rows = Store(home), home / "stages" / "data" / "rows.jsonl"
    rows.parent.mkdir(parents=True)
    rows.write_text('{"a": 1}\n')
    outputs: dict[str, Any] = {"artifacts": {"rows": str(rows)}, "metrics": {"rows": 1.0}, "report": {}}
    for run in ("r1", "r2"):
        store.create_run(run, "demo", {"directory": str(home), "stages": []}, [("data", "d" * 64), ("train", "t")])
        store.move_run(run, "running")
    store.end_stage(store.claim_stage("r1", "data"), "succeeded", outputs=outputs)
    store.end_stage(store.claim_stage("r1", "train"), "failed", error=InputError("bad"))
    store.move_run("r1", "failed", error=InputError("bad"))
    store.reset_stage("r1", "train", "the run is resumed")
    store.move_run("r1", "queued")
    store.reuse_stage("r2", "data", outputs)
    store.claim_stage("r2", "train")
    release = store.get_or_create_release("svc", "aa", "r1", {"model": str(rows)})
    store.get_or_create_release("svc", "bb", "r2", {"model": "/elsewhere/model"})
    store.move_release(release, "starting")
    store.move_release(release, "warm", url="http://127.0.0.1:1/v1")
    store.switch("svc", 1, expected=None, kind="release.promoted", reason=None)
    store.add_benchmark({"id": "b-1", "name": "demo", "created": 1.0, "value": float("nan")})
    store.set_baseline("demo", "b-1")
    store.leases.acquire("controller", "a", for_s=15)
    return store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return worked(tmp_path / "home")


def _spoil(store: Store, statement: str) -> None:
    with store.database.begin() as connection:
        connection.execute(text(statement))


def test_a_store_in_which_much_has_happened_is_whole(store: Store) -> None:
    found = check(store.database)
    assert found.problems == []
    assert (found.rows["runs"], found.rows["releases"], found.artifacts, found.bytes) == (2, 2, 1, 9)
    assert found.rows["events"] == len(store.events())


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE runs SET state = 'succeeded' WHERE id = 'r1'", "run r1 is succeeded, but its last event says queued"),
        ("DELETE FROM runs WHERE id = 'r1'", "run r1 is not there, but its last event says queued"),
        (
            "UPDATE stage_runs SET state = 'pending' WHERE run = 'r2' AND stage = 'train'",
            "run r2: stage train is pending, but its last event says running",
        ),
        ("UPDATE releases SET state = 'failed' WHERE number = 2",
         "release svc@2 is failed, but its last event says created"),
        (
            "INSERT INTO events (time, run, who, kind, data) VALUES (1, 'r1', 'x', 'run.succeeded', '{}')",
            "run r1 cannot go from queued to succeeded",
        ),
        (
            "INSERT INTO stage_runs (run, stage, position, digest, state, attempts)"
            " VALUES ('r3', 'data', 0, 'd', 'running', 1)",
            "run r3: stage data is running, but its last event says pending",
        ),
    ],
)  # fmt: skip
def test_a_state_that_the_log_does_not_tell_of_is_found(store: Store, statement: str, problem: str) -> None:
    _spoil(store, statement)
    problems = check(store.database).problems
    assert any(problem in found for found in problems), problems


def test_an_artifact_that_is_gone_or_changed_is_found(store: Store) -> None:
    [artifact] = store.artifacts("r1")
    path = Path(artifact["path"])
    path.write_text('{"a": 2}\n')
    [problem] = check(store.database).problems
    assert problem.startswith("run r1: artifact rows of data has changed since it was made")
    path.unlink()
    [problem] = check(store.database).problems
    assert problem == f"run r1: artifact rows of data is missing: {path}"


def test_an_artifact_that_was_made_again_is_held_against_its_newest_digest(store: Store) -> None:
    [artifact] = store.artifacts("r1")
    Path(artifact["path"]).write_text("made anew\n")
    store.reset_stage("r1", "data", "its file is gone")
    store.end_stage(store.claim_stage("r1", "data"), "succeeded", outputs={"artifacts": {"rows": artifact["path"]}})
    assert check(store.database).problems == []


def test_a_value_that_cannot_be_read_is_found(store: Store) -> None:
    _spoil(store, "UPDATE benchmarks SET result = '{broken'")
    [problem] = check(store.database).problems
    assert problem.startswith("table benchmarks: what stands after row 0 cannot be read")


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_a_file_with_a_damaged_page_is_one_clear_error_or_a_problem(store: Store) -> None:
    for number in range(200):
        store.record("filler", words=json.dumps([number] * 100))
    store.database.close()
    path = Path(store.place)
    content = bytearray(path.read_bytes())
    content[-8192:-4096] = b"\xff" * 4096
    path.write_bytes(content)
    try:
        problems = check(Store(path.parent).database).problems
    except InputError as error:
        problems = [error.message]
    assert any(str(path) in problem for problem in problems)
