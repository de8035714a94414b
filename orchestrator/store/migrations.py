"""From the schema of an older version to this one: steps in their order, each written once and never changed again.

All steps and the new version are one transaction that locks out other writers, so that a second process that opens
the store at the same moment waits and then finds nothing to do. The steps say their own DDL: `schema.py` goes on
changing, what an old store needs does not.
"""

from collections.abc import Callable

from sqlalchemy import Connection, text

from orchestrator.errors import InputError
from orchestrator.store import schema, triggers
from orchestrator.store.backend import Backend

Step = Callable[[Connection, Backend], None]


def bring_up_to_date(connection: Connection, backend: Backend, place: str) -> None:
    """Create the tables of a new store, or take the steps that an older one lacks; InputError for a newer one."""
    version = backend.version(connection)
    if version > schema.VERSION:
        raise InputError(
            f"{place} was written by a newer version (schema {version}, this is {schema.VERSION})",
            next_step="upgrade orch, or use another store",
        )
    if version == schema.VERSION:
        return
    if version == 0:
        schema.metadata.create_all(connection, checkfirst=False)  # what is there already is not ours
        triggers.create(connection)
    else:
        for step in STEPS[version - 1 :]:
            step(connection, backend)
    backend.set_version(connection, schema.VERSION)


def _run(connection: Connection, backend: Backend, statements: tuple[str, ...]) -> None:
    for statement in statements:
        connection.execute(text(backend.ddl(statement)))


def _benchmarks_and_schedules(connection: Connection, backend: Backend) -> None:
    """1 -> 2: results of benchmarks with their baselines; schedules and their history.

    The rows of `benchmark_results` stay where they are. They lack what a result has to have (p90, minimum, maximum,
    the server's address), which must not be made up; `orch status RUN --json` shows the same values as before.
    """
    _run(connection, backend, _VERSION_2)


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


def _leases_and_an_append_only_log(connection: Connection, backend: Backend) -> None:
    """2 -> 3: leases; triggers that refuse to change the event log; the newest runs without reading all of them."""
    _run(connection, backend, _VERSION_3)
    triggers.create(connection)


_VERSION_3 = (
    """CREATE TABLE leases (
        name VARCHAR NOT NULL, holder VARCHAR, fence INTEGER NOT NULL, expires FLOAT NOT NULL, PRIMARY KEY (name))""",
    "CREATE INDEX ix_runs_created ON runs (created)",
)


def _request_fields(connection: Connection, backend: Backend) -> None:
    """3 -> 4: what each request to a release's engine must say besides."""
    _run(connection, backend, ("ALTER TABLE releases ADD COLUMN request_fields JSON",))


def _allocations(connection: Connection, backend: Backend) -> None:
    """4 -> 5: places on clusters that runs and engines hold; since when a run waits, and for what."""
    _run(connection, backend, _VERSION_5)


_VERSION_5 = (
    "ALTER TABLE runs ADD COLUMN queued FLOAT",
    "ALTER TABLE runs ADD COLUMN wait JSON",
    "CREATE INDEX runs_by_state ON runs (state)",
    """CREATE TABLE allocations (
        owner VARCHAR NOT NULL, attempt INTEGER NOT NULL, cluster VARCHAR NOT NULL, state VARCHAR NOT NULL,
        kind VARCHAR NOT NULL, bundle JSON NOT NULL, placements JSON NOT NULL, created FLOAT NOT NULL,
        renewed FLOAT NOT NULL, begun BOOLEAN NOT NULL, until FLOAT, ended FLOAT, cause VARCHAR, reason VARCHAR,
        PRIMARY KEY (owner, attempt))""",
    "CREATE INDEX ix_allocations_state ON allocations (state)",
)


STEPS: tuple[Step, ...] = (_benchmarks_and_schedules, _leases_and_an_append_only_log, _request_fields, _allocations)
"""The first one leads from version 1 to 2, and so on."""
