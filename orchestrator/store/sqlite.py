"""What only SQLite needs: one file, one machine, many processes."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event, text

from orchestrator.errors import InputError, OrchError, StoreAwayError, disk_full

READING: dict[str, Any] = {"reader": True}
SNAPSHOT = READING
"""In WAL mode a transaction sees the file as it was at its first read."""
NOW = "(julianday('now') - 2440587.5) * 86400.0"
"""Seconds since 1970 by the database's own clock."""
WAIT_S = 30
BALLAST_BYTES = 4_000_000
"""A spare file beside the store, given up when the disk is full, so that this very failure can be written down."""
_NO_PERMISSION = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def engine(url: URL) -> Engine:
    """Nothing is opened yet."""
    made = create_engine(url, connect_args={"timeout": WAIT_S})
    event.listen(made, "connect", _pragmas)
    event.listen(made, "begin", _begin)
    event.listen(made, "handle_error", _give_up_ballast)
    return made


def after_opening(engine: Engine) -> None:
    """Keep a spare file for the day on which the disk is full."""
    ballast = _ballast(engine.url.database)
    if not ballast.exists() and shutil.disk_usage(ballast.parent).free > 10 * BALLAST_BYTES:
        ballast.write_bytes(bytes(BALLAST_BYTES))


def version(connection: Connection) -> int:
    """Of the schema; 0 for a new file."""
    return int(connection.execute(text("PRAGMA user_version")).scalar_one())


def set_version(connection: Connection, version: int) -> None:
    """In the transaction of what it tells of."""
    connection.execute(text(f"PRAGMA user_version = {version}"))


def ddl(statement: str) -> str:
    """A migration's statement in this dialect."""
    return statement


def watch(engine: Engine) -> Callable[[], bool]:
    """Says whether another connection has committed since it was last asked; a few microseconds."""
    file = f"file:{engine.url.database}?mode=ro"
    connection = sqlite3.connect(file, uri=True, check_same_thread=False)
    seen: int | None = None

    def changed() -> bool:
        nonlocal seen
        before, seen = seen, connection.execute("PRAGMA data_version").fetchone()[0]
        return seen != before

    return changed


def damage(connection: Connection) -> list[str]:
    """What SQLite's own check finds wrong with the file."""
    found = [str(row[0]) for row in connection.execute(text("PRAGMA integrity_check"))]
    return [] if found == ["ok"] else found


def after_copy(connection: Connection) -> None:
    """The next id is one more than the largest."""


def expected(error: BaseException, place: str) -> OrchError | None:
    """The error for the user; None for one that nobody foresaw."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    if code == sqlite3.SQLITE_FULL:
        return disk_full(place)
    if code & 0xFF in _NO_PERMISSION:
        where = Path(place)
        return InputError(
            f"cannot use {where.parent} as the store: {where.name} there cannot be written ({error})",
            next_step="give yourself the right to write there, or set ORCH_HOME to a folder that can be written",
        )
    if code & 0xFF in _DAMAGED:
        return InputError(
            f"{place} is damaged: {error}", next_step="move it away, then `orch store restore --from URI` a backup"
        )
    if code & 0xFF == sqlite3.SQLITE_BUSY:
        return StoreAwayError(f"another process has kept {place} locked for more than {WAIT_S} s")
    return None


def _ballast(database: str | None) -> Path:
    return Path(database or "").with_name("ballast")


def _give_up_ballast(context: ExceptionContext) -> None:
    if context.engine and getattr(context.original_exception, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        _ballast(context.engine.url.database).unlink(missing_ok=True)


def _begin(connection: Connection) -> None:
    # IMMEDIATE: a transaction that reads and then writes must not find that somebody else wrote in between
    reader = connection.get_execution_options().get("reader", False)
    connection.exec_driver_sql("BEGIN" if reader else "BEGIN IMMEDIATE")


def _pragmas(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None  # BEGIN is ours, see _begin
    # FULL: a power cut must not lose a transition; it costs 0.35 ms a transaction
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
