"""From the schema of an older version to this one: steps in their order, each written once and never changed again.

The version is SQLite's `user_version`. All steps and the new version are one transaction that locks out other
writers, so that a second process that opens the file at the same moment waits and then finds nothing to do.
The steps say their own DDL: `schema.py` goes on changing, what an old file needs does not.
"""

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, text

from orchestrator.errors import InputError
from orchestrator.store import schema


def bring_up_to_date(connection: Connection, path: Path) -> None:
    """Create the tables of a new file, or take the steps that an older one lacks; InputError for a newer one."""
    version = connection.execute(text("PRAGMA user_version")).scalar_one()
    if version > schema.VERSION:
        raise InputError(
            f"{path} was written by a newer version (schema {version}, this is {schema.VERSION})",
            next_step="upgrade orch, or set ORCH_HOME to another folder",
        )
    if version == schema.VERSION:
        return
    if version == 0:
        schema.metadata.create_all(connection)
    else:
        for step in STEPS[version - 1 :]:
            step(connection)
    connection.execute(text(f"PRAGMA user_version = {schema.VERSION}"))


def _benchmarks_and_schedules(connection: Connection) -> None:
    """1 -> 2: results of benchmarks with their baselines; schedules and their history.

    The rows of `benchmark_results` stay where they are. They lack what a result has to have (p90, minimum, maximum,
    the server's address), which must not be made up; `orch status RUN --json` shows the same values as before.
    """
    for statement in _VERSION_2:
        connection.execute(text(statement))


_VERSION_2 = (
    """CREATE TABLE benchmarks (
        id VARCHAR NOT NULL, name VARCHAR NOT NULL, created FLOAT NOT NULL, run VARCHAR, service VARCHAR,
        source VARCHAR NOT NULL, result JSON NOT NULL, PRIMARY KEY (id))""",
    "CREATE INDEX ix_benchmarks_created ON benchmarks (created)",
    """CREATE TABLE baselines (
        name VARCHAR NOT NULL, benchmark VARCHAR NOT NULL, time FLOAT NOT NULL, who VARCHAR NOT NULL,
        PRIMARY KEY (name))""",
    """CREATE TABLE schedules (
        name VARCHAR NOT NULL, cron VARCHAR NOT NULL, timezone VARCHAR NOT NULL, command JSON NOT NULL,
        cwd VARCHAR NOT NULL, paused BOOLEAN NOT NULL, webhook VARCHAR, missed VARCHAR NOT NULL,
        overlap VARCHAR NOT NULL, created FLOAT NOT NULL, next_tick FLOAT NOT NULL, PRIMARY KEY (name))""",
    """CREATE TABLE schedule_runs (
        id INTEGER NOT NULL, schedule VARCHAR NOT NULL, tick FLOAT NOT NULL, state VARCHAR NOT NULL, reason VARCHAR,
        started FLOAT, ended FLOAT, exit_code INTEGER, pid INTEGER, log VARCHAR, PRIMARY KEY (id))""",
    "CREATE INDEX ix_schedule_runs_schedule ON schedule_runs (schedule)",
    "CREATE INDEX ix_schedule_runs_state ON schedule_runs (state)",
)

STEPS: tuple[Callable[[Connection], None], ...] = (_benchmarks_and_schedules,)
"""The first one leads from version 1 to 2, and so on."""
