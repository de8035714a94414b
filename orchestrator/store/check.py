"""Is the store whole: the database, the event log against the states, and the artifacts against their digests.

    found = check(store.database)
    found.problems            # sentences; none when all is well

Nothing is repaired: an event log that disagrees is evidence, and an artifact can be made again by its stage.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, RowMapping, func, select

from orchestrator.digests import digest_path
from orchestrator.store import schema
from orchestrator.store.database import Database
from orchestrator.store.records import RELEASE_MOVES, RUN_MOVES, STAGE_MOVES

BATCH = 1000
"""Rows that are read at once: a large store does not fit into memory."""
_RUN: dict[str, set[str]] = {"": {"queued"}, **RUN_MOVES}
_RELEASE: dict[str, set[str]] = {"": {"created"}, "created": RELEASE_MOVES["stopped"], **RELEASE_MOVES}
_MOVES = {"run": _RUN, "stage": STAGE_MOVES, "release": _RELEASE}
_FIRST = {"run": "", "stage": "pending", "release": ""}
_KINDS = [f"{what}.{state}" for what, moves in _MOVES.items() for state in moves]
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Checked:
    """What was looked at, and what is wrong with it."""

    rows: dict[str, int]
    """Table -> rows, all of which were read."""
    artifacts: int
    bytes: int
    problems: list[str]


def check(database: Database) -> Checked:
    """Reads every row of one moment, then every artifact. Raises InputError where not even that is possible."""
    with database.snapshot() as connection:
        problems = [f"{database.place}: {text}" for text in database.backend.damage(connection)]
        rows = {name: _read(connection, name, problems) for name in schema.metadata.tables}
        problems += _disagreements(connection)
        artifacts = finished_artifacts(connection)
    problems += [problem for artifact in artifacts if (problem := _artifact(artifact))]
    return Checked(rows, len(artifacts), sum(artifact["bytes"] for artifact in artifacts), problems)


def finished_artifacts(connection: Connection) -> list[RowMapping]:
    """The rows of `artifacts` that describe what lies at their paths now: the newest, of stages that have succeeded."""
    table, stages = schema.artifacts, schema.stage_runs
    newest = select(func.max(table.c.id)).group_by(table.c.path)
    of_stage = (stages.c.run == table.c.run) & (stages.c.stage == table.c.stage) & (stages.c.state == "succeeded")
    query = select(table).join(stages, of_stage).where(table.c.id.in_(newest)).order_by(table.c.id)
    return list(connection.execute(query).mappings())


def _read(connection: Connection, name: str, problems: list[str]) -> int:
    count = 0
    try:
        for _ in connection.execute(select(schema.metadata.tables[name]).execution_options(yield_per=BATCH)):
            count += 1
    except ValueError as error:
        problems.append(f"table {name}: what stands after row {count} cannot be read: {error}")
    return count


def _disagreements(connection: Connection) -> Iterator[str]:
    """Moves in the log that no table of moves has, and states that are not those that the log ends with."""
    states: dict[Key, str] = {}
    for event in _moves(connection):
        what, state = event["kind"].split(".")
        key = _key(what, event)
        before = states.get(key, _FIRST[what])
        if state not in _MOVES[what].get(before, set()):
            yield f"event {event['id']}: {_named(key)} cannot go from {before or 'nothing'} to {state}"
        states[key] = state
    for key, state in _states(connection):
        told = states.pop(key, _FIRST[key[0]])
        if state != ("stopped" if told == "created" else told):
            yield f"{_named(key)} is {state}, but its last event says {told or 'nothing'}"
    yield from (f"{_named(key)} is not there, but its last event says {told}" for key, told in states.items())


def _moves(connection: Connection) -> Iterator[RowMapping]:
    table = schema.events
    columns = (table.c.id, table.c.kind, table.c.run, table.c.stage, table.c.service, table.c.data)
    query = select(*columns).where(table.c.kind.in_(_KINDS)).order_by(table.c.id)
    yield from connection.execute(query.execution_options(yield_per=BATCH)).mappings()


def _key(what: str, event: RowMapping) -> Key:
    if what == "run":
        return what, event["run"]
    if what == "stage":
        return what, event["run"], event["stage"]
    return what, event["service"], event["data"]["release"]


def _states(connection: Connection) -> Iterator[tuple[Key, str]]:
    runs, stages, releases = schema.runs.c, schema.stage_runs.c, schema.releases.c
    for what, query in (
        ("run", select(runs.id, runs.state)),
        ("stage", select(stages.run, stages.stage, stages.state)),
        ("release", select(releases.service, releases.number, releases.state)),
    ):
        for *key, state in connection.execute(query):
            yield (what, *key), state


def _named(key: Key) -> str:
    what, *names = key
    return {"run": "run {}", "stage": "run {0}: stage {1}", "release": "release {0}@{1}"}[what].format(*names)


def _artifact(row: RowMapping) -> str | None:
    path, name = Path(row["path"]), f"run {row['run']}: artifact {row['name']} of {row['stage']}"
    if not path.exists():
        return f"{name} is missing: {path}"
    digest, _ = digest_path(path)
    if digest != row["digest"]:
        return f"{name} has changed since it was made: {path} has the digest {digest[:16]}, not {row['digest'][:16]}"
    return None
