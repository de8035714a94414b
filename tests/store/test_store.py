"""The store on a real database: moves, claims, events, reuse, releases, and writers at once."""

import math
import multiprocessing
import re
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from orchestrator.errors import InputError, NotAllowedError, OrchError, StaleClaimError
from orchestrator.store import identity
from orchestrator.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, clock=iter(range(1000)).__next__)


def _run(store: Store, run: str = "r1") -> str:
    store.create_run(run, "demo", {"stages": []}, [("data", "d" * 64), ("train", "t" * 64)])
    return run


def test_a_run_moves_only_along_the_table(store: Store) -> None:
    run = _run(store)
    with pytest.raises(OrchError, match="cannot go from 'queued' to 'succeeded'"):
        store.move_run(run, "succeeded")
    store.move_run(run, "running")
    store.move_run(run, "failed", error=InputError("bad row 3"))
    assert store.run(run).error == {"type": "InputError", "message": "bad row 3", "next_step": None}


def test_every_move_writes_its_event_in_the_same_order(store: Store) -> None:
    run = _run(store)
    store.move_run(run, "running")
    store.claim_stage(run, "data")
    assert [event.kind for event in store.events(run=run)] == ["run.queued", "run.running", "stage.running"]
    assert [event.kind for event in store.events(run=run, after=2)] == ["stage.running"]


def test_a_finished_stage_is_found_by_its_digest_while_its_artifacts_exist(store: Store, tmp_path: Path) -> None:
    run, made = _run(store), tmp_path / "rows.jsonl"
    made.write_text("{}\n")
    claim = store.claim_stage(run, "data")
    store.end_stage(claim, "succeeded", outputs={"artifacts": {"rows": str(made)}})
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


def test_what_requests_to_an_engine_must_say_goes_with_the_engine(store: Store) -> None:
    release = store.get_or_create_release("svc", "aa", "r1", {})
    store.move_release(release, "starting")
    said = {"lora_request": {"lora_name": "svc@1"}}
    store.move_release(release, "warm", url="http://127.0.0.1:1/v1", request_fields=said)
    assert store.release("svc", 1).request_fields == said
    assert store.routes()["releases"][0]["request_fields"] == said
    store.move_release(store.release("svc", 1), "stopped")
    assert store.release("svc", 1).request_fields is None


def test_a_switch_that_somebody_else_made_obsolete_changes_nothing(store: Store) -> None:
    release = store.get_or_create_release("svc", "aa", "r1", {})
    with pytest.raises(NotAllowedError, match="no engine answers"):
        store.switch("svc", 1, expected=None, kind="release.promoted", reason=None)
    store.move_release(release, "starting")
    store.move_release(release, "warm", url="http://127.0.0.1:1/v1")
    with pytest.raises(NotAllowedError, match="switched by somebody else"):
        store.switch("svc", 1, expected=7, kind="release.promoted", reason=None)
    assert store.service("svc").current is None


def test_only_the_current_claim_says_what_became_of_a_stage(store: Store) -> None:
    run = _run(store)
    first = store.claim_stage(run, "data")
    store.reset_stage(run, "data", "its node is gone")
    with pytest.raises(StaleClaimError, match=r"attempt 1 of data ended as succeeded, but it is pending"):
        store.end_stage(first, "succeeded", outputs={"artifacts": {}})
    second = store.claim_stage(run, "data")
    assert (first.fence, second.fence) == (1, 2)
    with pytest.raises(StaleClaimError, match="attempt 2 has taken over; its result was dropped"):
        store.end_stage(first, "failed", error=InputError("late"))
    store.end_stage(second, "succeeded", outputs={"artifacts": {}})
    with pytest.raises(StaleClaimError, match="it is succeeded"):
        store.end_stage(second, "succeeded", outputs={"artifacts": {"other": "/x"}})
    row = store.stage_runs(run)[0]
    assert (row.state, row.attempts, row.outputs, row.error) == ("succeeded", 2, {"artifacts": {}}, None)
    told = [(event.kind, event.data.get("attempt")) for event in store.events(run=run) if event.stage]
    expected = [("stage.running", 1), ("stage.pending", None), ("stage.running", 2), ("stage.succeeded", 2)]
    assert told == expected, "a stale writer leaves no trace"


def test_a_stage_that_runs_cannot_be_claimed_again(store: Store) -> None:
    run = _run(store)
    store.claim_stage(run, "data")
    with pytest.raises(OrchError, match="cannot go from 'running' to 'running'"):
        store.claim_stage(run, "data")
    assert store.stage_runs(run)[0].attempts == 1


def test_an_attempt_that_is_given_back_goes_on_as_the_next_one(store: Store) -> None:
    run = _run(store)
    store.end_stage(store.claim_stage(run, "data"), "pending", error=InputError("its process died"))
    assert store.claim_stage(run, "data").fence == 2


def test_an_event_says_who_and_why(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _run(store)
    monkeypatch.setenv(identity.VARIABLE, "run-r1")
    store.claim_stage(run, "data")
    store.reset_stage(run, "data", "its node is gone")
    queued, _, reset = store.events(run=run)
    assert re.fullmatch(r".+@.+", queued.who), "a user at a machine"
    assert queued.who == store.run(run).owner
    assert (reset.who, reset.data) == ("run-r1", {"reason": "its node is gone"})


def test_the_database_itself_refuses_to_change_the_event_log(store: Store, kind: str) -> None:
    _run(store)
    before = store.events()
    truncate = ["TRUNCATE events"] if kind == "postgresql" else []  # SQLite has no TRUNCATE
    for statement in ("UPDATE events SET who = 'nobody'", "DELETE FROM events", *truncate):
        with pytest.raises(DatabaseError, match="append-only"), store.database.begin() as connection:
            connection.execute(text(statement))
    assert store.events() == before != []


def test_values_that_json_does_not_know_are_kept_as_they_are(store: Store) -> None:
    store.record("progress", loss=math.nan, peak=math.inf, words="\u0000 \u2028 ü")
    data = store.events()[0].data
    assert math.isnan(data["loss"])
    assert (data["peak"], data["words"]) == (math.inf, "\u0000 \u2028 ü")


def test_an_artifact_may_be_larger_than_32_bits_count(store: Store) -> None:
    row = {"digest": "d", "run": "r1", "stage": "train", "name": "model", "path": "/m", "created": 1.0}
    with store.database.begin() as connection:
        connection.execute(text(
            "INSERT INTO artifacts (digest, run, stage, name, path, created, bytes)"
            " VALUES (:digest, :run, :stage, :name, :path, :created, :bytes)"
        ), {**row, "bytes": 140_000_000_000})  # fmt: skip
    assert store.artifacts("r1")[0]["bytes"] == 140_000_000_000
