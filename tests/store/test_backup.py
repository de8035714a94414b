"""A backup is one moment, published whole, and comes back only whole and only into an empty store."""

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from orchestrator.errors import InputError
from orchestrator.store import location, schema
from orchestrator.store.artifacts import Artifacts
from orchestrator.store.backup import Manifest, backup, restore
from orchestrator.store.check import check
from orchestrator.store.store import Store
from tests.postgresql import Server
from tests.store.conftest import Another
from tests.store.test_check import worked
from tests.store.test_migrations import VERSION_1


def _content(store: Store) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, but for the event that a restore adds."""
    found = {}
    for name, table in schema.metadata.tables.items():
        rows = store.database.rows(select(table).order_by(*table.primary_key.columns))
        found[name] = [dict(row) for row in rows if row.get("kind") != "store.restored"]
    return found


def _same(one: Store, other: Store) -> bool:
    return json.dumps(_content(one), default=str) == json.dumps(_content(other), default=str)  # NaN is not equal to NaN


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return worked(tmp_path / "home")


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "storage")


def test_every_row_comes_back(store: Store, place: str, another: Another) -> None:
    said = backup(store.database, store.home, place, artifacts=False)
    assert said.startswith(f"{place}/backups/")
    new = Store(another("new"))
    found = restore(new.database, store.home, place)
    assert _same(store, new)
    assert found.rows["runs"] == 2
    assert new.events()[-1].data == {"message": said}


def test_a_restored_store_goes_on_where_the_old_one_was(store: Store, place: str, another: Another) -> None:
    backup(store.database, store.home, place, artifacts=False)
    new = Store(another("new"))
    restore(new.database, store.home, place)
    last = new.events()[-1].id
    new.move_run("r1", "running")
    assert new.events()[-1].id > last
    made = {"artifacts": {"rows": new.artifacts("r1")[0]["path"]}}
    new.end_stage(new.claim_stage("r1", "train"), "succeeded", outputs=made)
    assert len(new.artifacts("r1")) == 2
    assert check(new.database).problems == []


def test_artifacts_come_back_below_the_new_home(store: Store, place: str, another: Another) -> None:
    backup(store.database, store.home, place, artifacts=True)
    old, home = Path(store.artifacts("r1")[0]["path"]), another("new")
    old.unlink()
    new = Store(home)
    restore(new.database, home, place)
    moved = home / "stages" / "data" / "rows.jsonl"
    assert moved.read_text() == '{"a": 1}\n'
    stage = new.finished_stage("d" * 64)
    assert stage is not None
    assert (stage.outputs or {})["artifacts"] == {"rows": str(moved)}
    assert new.release("svc", 1).spec == {"model": str(moved)}
    assert new.release("svc", 2).spec == {"model": "/elsewhere/model"}
    assert new.run("r1").plan["directory"] == str(home)
    assert check(new.database).problems == []


def test_a_backup_sees_one_moment_while_others_write(store: Store) -> None:
    before = _content(store)
    with store.database.snapshot() as moment:
        assert moment.execute(select(schema.runs)).first() is not None
        store.move_run("r1", "running")
        store.create_run("r3", "demo", {}, [])
        seen = {row.id: row.state for row in moment.execute(select(schema.runs))}
    assert seen == {row["id"]: row["state"] for row in before["runs"]}


def test_the_newest_backup_is_restored_or_the_one_that_is_named(store: Store, place: str, another: Another) -> None:
    first = backup(store.database, store.home, place, artifacts=False, clock=lambda: 1_000_000.0)
    store.create_run("r3", "demo", {}, [])
    backup(store.database, store.home, place, artifacts=False, clock=lambda: 2_000_000.0)
    newest = Store(another("newest"))
    assert restore(newest.database, store.home, place).rows["runs"] == 3
    named = Store(another("named"))
    assert restore(named.database, store.home, first).rows["runs"] == 2


def test_a_store_that_is_not_empty_is_left_alone(store: Store, place: str) -> None:
    backup(store.database, store.home, place, artifacts=False)
    before = _content(store)
    with pytest.raises(InputError, match=r"is not empty \(it has runs, .*an empty store only\n.*ORCH_HOME"):
        restore(store.database, store.home, place)
    assert str(_content(store)) == str(before)


@pytest.mark.parametrize("what", ["files", "backups"])
def test_a_damaged_backup_is_refused_by_name_and_nothing_is_restored(
    what: str, store: Store, place: str, another: Another
) -> None:
    backup(store.database, store.home, place, artifacts=False)
    [damaged] = [path for path in (Path(place) / what).rglob("*") if path.is_file()]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    new = Store(another("new"))
    with pytest.raises(InputError, match=f"{damaged.name} is damaged"):
        restore(new.database, new.home, place)
    assert not any(_content(new).values())


def test_a_damaged_artifact_keeps_the_database_empty(store: Store, place: str, another: Another) -> None:
    backup(store.database, store.home, place, artifacts=True)
    digest = store.artifacts("r1")[0]["digest"]
    (Path(place) / "files" / digest[:2] / digest).write_text("other")
    home = another("new")
    new = Store(home)
    with pytest.raises(InputError, match=f"{digest} is damaged"):
        restore(new.database, home, place)
    assert not any(_content(new).values())
    assert not (home / "stages" / "data" / "rows.jsonl").exists()


def test_a_file_in_the_way_of_an_artifact_is_not_overwritten(store: Store, place: str, another: Another) -> None:
    backup(store.database, store.home, place, artifacts=True)
    home = another("new")
    mine = home / "stages" / "data" / "rows.jsonl"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    new = Store(home)
    with pytest.raises(InputError, match=r"rows\.jsonl is in the way"):
        restore(new.database, home, place)
    assert mine.read_text() == "mine"
    assert not any(_content(new).values())


def test_an_artifact_that_has_changed_is_not_saved_as_what_it_was(store: Store, place: str) -> None:
    path = Path(store.artifacts("r1")[0]["path"])
    path.write_text("changed")
    with pytest.raises(InputError, match=r"rows\.jsonl has changed"):
        backup(store.database, store.home, place, artifacts=True)
    assert not (Path(place) / "backups").exists(), "nothing was published"


def test_no_backup_is_one_clear_error(store: Store, place: str) -> None:
    with pytest.raises(InputError, match="no backup at"):
        restore(store.database, store.home, place)


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_a_store_moves_from_sqlite_to_postgresql_and_back(
    store: Store, place: str, tmp_path: Path, postgresql: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup(store.database, store.home, place, artifacts=False)
    with monkeypatch.context() as patch:
        patch.setenv(location.VARIABLE, postgresql.fresh())
        team = Store(tmp_path / "team")
        restore(team.database, store.home, place)
        assert _same(store, team)
        backup(team.database, store.home, f"{place}-2", artifacts=False)
    back = Store(tmp_path / "back")
    restore(back.database, store.home, f"{place}-2")
    assert _same(store, Store(tmp_path / "home"))
    assert [run.model_dump() for run in back.runs()] == [run.model_dump() for run in store.runs()]
    assert check(back.database).problems == []


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_a_backup_of_an_older_version_is_migrated(
    tmp_path: Path, postgresql: Server, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sqlite3.connect(tmp_path / "old.db") as connection:
        connection.executescript(VERSION_1.read_text())
    connection.close()
    _publish(place, tmp_path / "old.db", version=1)
    monkeypatch.setenv(location.VARIABLE, postgresql.fresh())
    new = Store(tmp_path / "new")
    restore(new.database, new.home, place)
    assert new.release("legal", 1).state == "warm"
    assert new.run("quickstart-1").state == "succeeded"


def _publish(place: str, database: Path, *, version: int) -> None:
    """A backup as another version of this program would have made it."""
    storage = Artifacts(place)
    found = Manifest(created=1.0, by="ann", store="old", home="/old", version=version, rows={"runs": 1},
                     database=storage.put(database), artifacts=[])  # fmt: skip
    content = found.model_dump_json().encode()
    storage.publish(f"backups/19700101-000001-{hashlib.sha256(content).hexdigest()[:16]}.json", content)


def test_a_backup_of_a_newer_version_is_refused(store: Store, place: str, tmp_path: Path, another: Another) -> None:
    (tmp_path / "newer.db").write_text("")
    _publish(place, tmp_path / "newer.db", version=99)
    new = Store(another("new"))
    with pytest.raises(InputError, match="was written by a newer version"):
        restore(new.database, new.home, place)
