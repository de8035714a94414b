"""What only PostgreSQL needs: one server, many machines. Imported only where the store's URL says so."""

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.errors import InputError, OrchError, StoreAwayError

READING: dict[str, Any] = {"reader": True, "isolation_level": "AUTOCOMMIT"}
SNAPSHOT: dict[str, Any] = {"reader": True, "isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
NOW = "extract(epoch from clock_timestamp())"
"""Seconds since 1970 by the database's own clock."""
CHANNEL = "orch"
"""The trigger on the events notifies it at every commit."""
WAIT_S = 30
_LOCK = 0x6F726368  # "orch"; with the schema's hash it names the lock that every writer holds
_RETRY_S = 0.2
_LIVELINESS = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
"""A server that is cut off is noticed within half a minute; the system's defaults are hours."""
_NO_PERMISSION = {"42501", "25006"}
"""insufficient_privilege; read_only_sql_transaction, as on a standby."""


def engine(url: URL) -> Engine:
    """Nothing is opened yet."""
    arguments = {"connect_timeout": 10, "application_name": "orch", **_LIVELINESS}
    made = create_engine(
        url,
        pool_pre_ping=True,  # the server may have been restarted since
        isolation_level="READ COMMITTED",  # what a writer reads after it got the lock must be what is there then
        connect_args={name: value for name, value in arguments.items() if name not in url.query},
    )
    event.listen(made, "connect", _settings)
    event.listen(made, "begin", _begin)
    return made


def after_opening(engine: Engine) -> None:
    """From now on a server that does not answer is waited for: it was there, and may only be restarting."""
    event.listen(engine, "do_connect", _connect_patiently)


def version(connection: Connection) -> int:
    """Of the schema; 0 for an empty database."""
    if connection.execute(text("SELECT to_regclass('store_version')")).scalar() is None:
        return 0
    return int(connection.execute(text("SELECT version FROM store_version")).scalar_one())


def set_version(connection: Connection, version: int) -> None:
    """In the transaction of what it tells of."""
    connection.execute(text("CREATE TABLE IF NOT EXISTS store_version (version INTEGER NOT NULL)"))
    connection.execute(text("DELETE FROM store_version"))
    connection.execute(text(f"INSERT INTO store_version VALUES ({version})"))


def ddl(statement: str) -> str:
    """A migration's statement in this dialect."""
    return statement.replace("id INTEGER NOT NULL", "id BIGSERIAL").replace(" JSON", " TEXT")


def watch(engine: Engine) -> Callable[[], bool]:
    """Says whether something was committed since it was last asked; it only looks at a flag.

    A thread listens, so that neither a slow network nor a server that is gone ever holds up the caller.
    """
    return _Watch(engine)


def damage(connection: Connection) -> list[str]:
    """PostgreSQL verifies what it reads, and `check` reads every row."""
    return []


def after_copy(connection: Connection) -> None:
    """The next id is one more than the largest, for rows that came with their ids."""
    for table in ("events", "artifacts", "schedule_runs"):
        largest = f"(SELECT max(id) FROM {table})"
        connection.execute(
            text(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {largest}) WHERE {largest} IS NOT NULL")
        )


def expected(error: BaseException, place: str) -> OrchError | None:
    """The error for the user; None for one that nobody foresaw."""
    if not isinstance(error, psycopg.Error):
        return None
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    if error.sqlstate in _NO_PERMISSION:
        return InputError(
            f"cannot use {place} as the store: {first}",
            next_step="GRANT the role CREATE and USAGE on the schema, and all rights on its tables",
        )
    if error.sqlstate == "55P03":  # lock_not_available
        return StoreAwayError(f"another process has kept {place} locked for more than {WAIT_S} s")
    if isinstance(error, psycopg.OperationalError):
        return StoreAwayError(
            f"the store {place} does not answer: {first}", next_step="is the server up, and the URL right?"
        )
    return None


def _begin(connection: Connection) -> None:
    # One writer at a time, as in SQLite: what it reads stays true until it commits, and ids of events are in the
    # order of the commits, so that whoever reads on from the last id misses none.
    if not connection.get_execution_options().get("reader", False):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK}, hashtext(current_schema()))")


def _settings(connection: psycopg.Connection[Any], _: Any) -> None:
    connection.autocommit = True
    # a writer that hangs between two statements, or is cut off, must not keep everybody else out for ever
    connection.execute(f"SET lock_timeout = '{WAIT_S}s'")
    connection.execute(f"SET idle_in_transaction_session_timeout = '{WAIT_S}s'")
    connection.autocommit = False


def _connect_patiently(dialect: Dialect, _: Any, args: Any, options: Any) -> Any:
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return dialect.connect(*args, **options)
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_S)


class _Watch:
    def __init__(self, engine: Engine) -> None:
        self._changed, stopped = threading.Event(), threading.Event()
        first = _listen(engine)
        self._changed.set()
        threading.Thread(target=_follow, args=(engine, first, self._changed, stopped), daemon=True).start()
        weakref.finalize(self, stopped.set)

    def __call__(self) -> bool:
        if not self._changed.is_set():
            return False
        self._changed.clear()
        return True


def _listen(engine: Engine) -> psycopg.Connection[Any]:
    borrowed = engine.raw_connection()
    connection = borrowed.driver_connection
    assert isinstance(connection, psycopg.Connection), "psycopg is the only driver that a URL can choose"
    borrowed.detach()
    connection.autocommit = True
    connection.execute(f"LISTEN {CHANNEL}")
    return connection


def _follow(
    engine: Engine, first: psycopg.Connection[Any] | None, changed: threading.Event, stopped: threading.Event
) -> None:
    while not stopped.is_set():
        try:
            with first or _listen(engine) as connection:
                if first is None:
                    changed.set()  # what happened while nobody listened
                first = None
                while not stopped.is_set():
                    for _ in connection.notifies(timeout=1, stop_after=1):
                        changed.set()
        except (psycopg.Error, SQLAlchemyError, OrchError):  # the server is gone; nothing changes until it is back
            first = None
            stopped.wait(_RETRY_S)
