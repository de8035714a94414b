"""The SQLite file under the store: transactions, events and moves; safe to open from many processes at once.

What every part of the store is made of. Which tables there are is in `schema.py`, and how an older file becomes a
newer one in `migrations.py`.
"""

import getpass
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, ExceptionContext, Select, Table, create_engine, event, insert, select, update

from orchestrator.errors import InputError, OrchError, disk_full
from orchestrator.store import migrations, schema

Row = Mapping[str, Any]
BALLAST_BYTES = 4_000_000
"""A spare file beside the store, given up when the disk is full, so that this very failure can be written down."""


class Database:
    """`orch.db` in the folder `home`."""

    def __init__(self, home: Path, clock: Callable[[], float]) -> None:
        """Opens or creates it. Raises InputError if it cannot be written or comes from a newer version."""
        self.home, self.clock = home, clock
        self.path = home / "orch.db"
        try:
            home.mkdir(parents=True, exist_ok=True)
            self._engine = create_engine(f"sqlite:///{self.path}", connect_args={"timeout": 30})
            event.listen(self._engine, "connect", _pragmas)
            event.listen(self._engine, "begin", _begin)
            event.listen(self._engine, "handle_error", self._when_full)
            self._reader = self._engine.execution_options(reader=True)
            with self.begin() as connection:
                migrations.bring_up_to_date(connection, self.path)
            self._keep_ballast()
        except Exception as error:
            if isinstance(error, OrchError):
                raise
            raise InputError(
                f"cannot use {home} as the store: {error.__cause__ or error}",
                next_step="set ORCH_HOME to a folder that can be written",
            ) from error

    def begin(self) -> AbstractContextManager[Connection]:
        """A transaction that may write; nobody else writes until it ends."""
        return self._engine.begin()

    def rows(self, query: Select[Any]) -> list[Row]:
        """What a query finds, in a transaction of its own."""
        with self._reader.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def event(self, connection: Connection, kind: str, *, run: str | None = None, stage: str | None = None,
              service: str | None = None, who: str | None = None, data: Row | None = None) -> None:  # fmt: skip
        """Append to the event log, in the transaction of the change that it tells of."""
        row = {"time": self.clock(), "run": run, "stage": stage, "service": service, "kind": kind}
        connection.execute(insert(schema.events).values(**row, who=who or user(), data=dict(data or {})))

    def move(self, connection: Connection, table: Table, key: Any, moves: Mapping[str, set[str]], state: str,
             values: Row) -> None:  # fmt: skip
        """Change the state of the row that `key` selects. Raises OrchError if the table of moves has no such move."""
        allowed = [before for before, after in moves.items() if state in after]
        done = connection.execute(update(table).where(key, table.c.state.in_(allowed)).values(state=state, **values))
        if done.rowcount == 0:
            now = connection.execute(select(table.c.state).where(key)).scalar()
            raise OrchError(f"{table.name}: cannot go from {now!r} to {state!r}")

    @property
    def _ballast(self) -> Path:
        return self.home / "ballast"

    def _keep_ballast(self) -> None:
        if not self._ballast.exists() and shutil.disk_usage(self.home).free > 10 * BALLAST_BYTES:
            self._ballast.write_bytes(bytes(BALLAST_BYTES))

    def _when_full(self, context: ExceptionContext) -> None:
        if getattr(context.original_exception, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            self._ballast.unlink(missing_ok=True)
            raise disk_full(self.path) from context.original_exception


def _begin(connection: Connection) -> None:
    # IMMEDIATE: a transaction that reads and then writes must not find that somebody else wrote in between
    reader = connection.get_execution_options().get("reader", False)
    connection.exec_driver_sql("BEGIN" if reader else "BEGIN IMMEDIATE")


def _pragmas(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None  # BEGIN is ours, see _begin
    # FULL: a power cut must not lose a transition; it costs 0.35 ms a transaction
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def user() -> str:
    """Who is acting, for the event log."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
