"""A store of an older version: opened by this one, everything in it is still there."""

import json
import multiprocessing
import sqlite3
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from orchestrator.errors import InputError
from orchestrator.store import migrations, schema
from orchestrator.store.store import Store

VERSION_1 = Path(__file__).with_name("version_1.sql")
RESULT = {"id": "b-1", "name": "demo", "created": 1.0, "cells": []}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folder of a store as version 1 left it."""
    with sqlite3.connect(tmp_path / "orch.db") as connection:
        connection.executescript(VERSION_1.read_text())
    connection.close()
    return tmp_path


def _query(home: Path, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(home / "orch.db")
    found = connection.execute(query).fetchall()
    connection.close()
    return found


def test_everything_of_version_1_is_still_there(old: Path) -> None:
    store = Store(old)
    assert _query(old, "PRAGMA user_version") == [(2,)]
    assert store.run("quickstart-1").state == "succeeded"
    assert [row.stage for row in store.stage_runs("quickstart-1")] == ["data", "benchmark"]
    assert store.artifacts("quickstart-1")[0]["bytes"] == 3
    assert [event.kind for event in store.events(run="quickstart-1")] == ["run.queued", "run.succeeded"]
    assert store.service("legal").current == 1
    assert store.release("legal", 1).url == "http://127.0.0.1:41231/v1"


def test_results_of_version_1_stay_readable_and_are_no_results_of_version_2(old: Path) -> None:
    store = Store(old)
    [(report,)] = _query(old, "SELECT report FROM benchmark_results")
    assert json.loads(str(report))["levels"][0]["latencies"]["ttft"]["p95"] == 0.02
    outputs = store.stage_runs("quickstart-1")[1].outputs
    assert outputs is not None
    assert outputs["report"] == json.loads(str(report))
    assert store.benchmarks() == []


def test_a_migrated_store_takes_what_is_new(old: Path) -> None:
    store = Store(old)
    store.add_benchmark(RESULT)
    assert store.set_baseline("demo", "latest") == "b-1"
    assert Store(old).benchmark("b-1") == RESULT
    assert Store(old).baseline("demo") == "b-1"


def test_a_migrated_store_has_the_tables_of_a_new_one(old: Path, tmp_path: Path) -> None:
    Store(old)
    Store(tmp_path / "new")
    assert _tables(old) - {"benchmark_results"} == _tables(tmp_path / "new")
    for table in _tables(tmp_path / "new"):
        columns = f"PRAGMA table_info({table})"
        assert _query(old, columns) == _query(tmp_path / "new", columns)
        indexes = f"SELECT name, \"unique\" FROM pragma_index_list('{table}') ORDER BY name"
        assert _query(old, indexes) == _query(tmp_path / "new", indexes)


def test_there_is_a_step_for_every_version() -> None:
    assert len(migrations.STEPS) == schema.VERSION - 1


def _open(home: Path, ready: Barrier, number: int) -> None:
    ready.wait()
    Store(home).record("opened", number=number)


def test_many_processes_that_open_an_old_store_at_once_migrate_it_once(old: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(4)
    openers = [context.Process(target=_open, args=(old, ready, number)) for number in range(4)]
    for opener in openers:
        opener.start()
    for opener in openers:
        opener.join()
    assert [opener.exitcode for opener in openers] == [0, 0, 0, 0]
    opened = {event.data["number"] for event in Store(old).events() if event.kind == "opened"}
    assert opened == {0, 1, 2, 3}
    assert Store(old).run("quickstart-1").state == "succeeded"


def test_a_migration_that_fails_leaves_the_old_store_as_it_was(old: Path) -> None:
    with sqlite3.connect(old / "orch.db") as connection:
        connection.execute("CREATE TABLE schedules (mine TEXT)")  # in the way of a later statement of the step
    connection.close()
    with pytest.raises(InputError, match="cannot use"):
        Store(old)
    assert _query(old, "PRAGMA user_version") == [(1,)]
    assert "benchmarks" not in _tables(old)


def _tables(home: Path) -> set[str]:
    return {str(name) for (name,) in _query(home, "SELECT name FROM sqlite_master WHERE type = 'table'")}
