"""A store of an older version: opened by this one, everything in it is still there.

PostgreSQL came with version 3. That the steps before it run there too keeps each of them free of one database's ways.
"""

import json
import multiprocessing
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.pool import NullPool

from orchestrator.errors import InputError
from orchestrator.store import location, migrations, schema
from orchestrator.store.store import Store
from tests.store.conftest import Another

VERSION_1 = Path(__file__).with_name("version_1.sql")
RESULT = {"id": "b-1", "name": "demo", "created": 1.0, "cells": []}


@pytest.fixture
def old(tmp_path: Path, kind: str) -> Path:
    """The folder of a store as version 1 left it."""
    if kind == "sqlite":
        connection = sqlite3.connect(tmp_path / "orch.db")
        connection.executescript(VERSION_1.read_text())
        connection.close()
        return tmp_path
    for statement in _translated(VERSION_1.read_text()):
        _execute(tmp_path, statement)
    return tmp_path


def _translated(script: str) -> list[str]:
    """SQLite's statements as PostgreSQL has them."""
    for found, instead in (
        (r"\bid INTEGER NOT NULL", "id BIGSERIAL"),
        (r"\bbytes INTEGER", "bytes BIGINT"),
        (r"\bJSON\b", "TEXT"),
        (r"106\.0, 0\)", "106.0, false)"),
        (
            r"PRAGMA user_version = (\d+)",
            r"CREATE TABLE store_version (version INTEGER NOT NULL);\nINSERT INTO store_version VALUES (\1)",
        ),
    ):
        script = re.sub(found, instead, script)
    sequences = [f"SELECT setval('{table}_id_seq', 100)" for table in ("events", "artifacts")]
    return [statement for statement in script.split(";\n") if statement.strip()] + sequences


@contextmanager
def _connection(home: Path) -> Iterator[Connection]:
    engine = create_engine(location.url_of(home), poolclass=NullPool)
    with engine.begin() as connection:
        yield connection


def _execute(home: Path, statement: str) -> None:
    with _connection(home) as connection:
        connection.exec_driver_sql(statement)


def _query(home: Path, query: str) -> list[tuple[object, ...]]:
    with _connection(home) as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def _version(home: Path, kind: str) -> object:
    return _query(home, "PRAGMA user_version" if kind == "sqlite" else "SELECT version FROM store_version")[0][0]


def _tables(home: Path) -> set[str]:
    with _connection(home) as connection:
        return set(inspect(connection).get_table_names())


def _shape(home: Path, table: str) -> object:
    """Columns, indexes and triggers of a table."""
    with _connection(home) as connection:
        found = inspect(connection)
        columns = [(column["name"], str(column["type"]), column["nullable"]) for column in found.get_columns(table)]
        indexes = sorted((str(index["name"]), index["column_names"]) for index in found.get_indexes(table))
        return columns, found.get_pk_constraint(table)["constrained_columns"], indexes


def _triggers(home: Path, kind: str) -> list[tuple[object, ...]]:
    where = "tgrelid = to_regclass('events')" if kind == "postgresql" else "type = 'trigger'"
    name, table = ("tgname", "pg_trigger") if kind == "postgresql" else ("name", "sqlite_master")
    return sorted(_query(home, f"SELECT {name} FROM {table} WHERE {where}"))


def test_everything_of_version_1_is_still_there(old: Path, kind: str) -> None:
    store = Store(old)
    assert _version(old, kind) == schema.VERSION
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


def test_a_migrated_store_has_the_tables_of_a_new_one(old: Path, kind: str, another: Another) -> None:
    Store(old)
    tables = _tables(old) - {"benchmark_results"}
    shapes, triggers = {table: _shape(old, table) for table in tables}, _triggers(old, kind)
    new = another("new")
    Store(new)
    assert tables == _tables(new)
    assert shapes == {table: _shape(new, table) for table in tables}
    assert triggers == _triggers(new, kind) != []


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


def test_a_migration_that_fails_leaves_the_old_store_as_it_was(old: Path, kind: str) -> None:
    _execute(old, "CREATE TABLE schedules (mine TEXT)")  # in the way of a later statement of the step
    with pytest.raises(InputError, match="cannot use"):
        Store(old)
    assert _version(old, kind) == 1
    assert "benchmarks" not in _tables(old)


def test_a_store_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    Store(tmp_path)
    _execute(tmp_path, "PRAGMA user_version = 99" if kind == "sqlite" else "UPDATE store_version SET version = 99")
    with pytest.raises(InputError, match=rf"newer version \(schema 99, this is {schema.VERSION}\)\n.*upgrade orch"):
        Store(tmp_path)
    assert _version(tmp_path, kind) == 99


def test_a_database_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    _execute(tmp_path, "CREATE TABLE runs (mine TEXT)")
    with pytest.raises(InputError, match=r"cannot use .*runs.* already exists"):
        Store(tmp_path)
    assert _tables(tmp_path) == {"runs"}
