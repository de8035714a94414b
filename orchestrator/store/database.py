"""The database under the store: transactions, events and moves; safe to open from many processes at once.

What every part of the store is made of. Which tables there are is in `schema.py`, how older ones become these in
`migrations.py`, and what differs between SQLite and PostgreSQL in the files of these names.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    ExceptionContext,
    Select,
    Table,
    event,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.errors import InputError, OrchError
from orchestrator.store import location, migrations, schema
from orchestrator.store.backend import backend_of
from orchestrator.store.identity import who as whoever_acts

Row = Mapping[str, Any]


class Database:
    """One store's tables, wherever its URL says."""

    def __init__(self, url: URL, clock: Callable[[], float]) -> None:
        """Opens or creates it. Raises InputError if it cannot be written or comes from a newer version.

        Raises InfrastructureError when its server does not answer.
        """
        self.url, self.clock = url, clock
        self.place = location.shown(url)
        self.backend = backend_of(url)
        self._engine = self.backend.engine(url)
        event.listen(self._engine, "handle_error", self._explain)
        self._reader = self._engine.execution_options(**self.backend.READING)
        self._guard: Callable[[Connection], None] | None = None
        try:
            with self.begin() as connection:
                migrations.bring_up_to_date(connection, self.backend, self.place)
        except SQLAlchemyError as error:
            raise InputError(
                f"cannot use {self.place} as the store: {error.__cause__ or error}",
                next_step="set ORCH_HOME to another folder, or ORCH_STORE to another database",
            ) from error
        self.backend.after_opening(self._engine)

    def close(self) -> None:
        """Give the connections up; a SQLite file is whole afterwards, without its log."""
        self._engine.dispose()

    def guarded(self, guard: Callable[[Connection], None]) -> "Database":
        """The same database, each of whose transactions begins with `guard`, which may raise and so refuse it."""
        other = object.__new__(Database)
        other.__dict__.update(self.__dict__, _guard=guard)
        return other

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction that may write; nobody else writes until it ends."""
        with self._engine.begin() as connection:
            if self._guard is not None:
                self._guard(connection)
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A transaction that only reads, and sees one moment while others write on."""
        with self._engine.execution_options(**self.backend.SNAPSHOT).connect() as connection:
            yield connection

    def rows(self, query: Select[Any]) -> list[Row]:
        """What a query finds, in a transaction of its own."""
        with self._reader.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def watch(self) -> Callable[[], bool]:
        """A function that says whether another connection has committed since it was last asked."""
        return self.backend.watch(self._engine)

    def event(self, connection: Connection, kind: str, *, run: str | None = None, stage: str | None = None,
              service: str | None = None, who: str | None = None, data: Row | None = None) -> None:  # fmt: skip
        """Append to the event log, in the transaction of the change that it tells of."""
        row = {"time": self.clock(), "run": run, "stage": stage, "service": service, "kind": kind}
        connection.execute(insert(schema.events).values(**row, who=who or whoever_acts(), data=dict(data or {})))

    def now(self, connection: Connection) -> float:
        """Seconds since 1970 by the database's own clock, which all of its users share."""
        return float(connection.execute(text(f"SELECT {self.backend.NOW}")).scalar_one())

    def move(self, connection: Connection, table: Table, key: ColumnElement[bool], moves: Mapping[str, set[str]],
             state: str, values: Row) -> None:  # fmt: skip
        """Change the state of the row that `key` selects. Raises OrchError if the table of moves has no such move."""
        allowed = [before for before, after in moves.items() if state in after]
        done = connection.execute(update(table).where(key, table.c.state.in_(allowed)).values(state=state, **values))
        if done.rowcount == 0:
            now = connection.execute(select(table.c.state).where(key)).scalar()
            raise OrchError(f"{table.name}: cannot go from {now!r} to {state!r}")

    def put(self, connection: Connection, table: Table, key: ColumnElement[bool], row: Row) -> None:
        """Replace the row that `key` selects, or insert it."""
        if connection.execute(update(table).where(key).values(**row)).rowcount == 0:
            connection.execute(insert(table).values(**row))

    def _explain(self, context: ExceptionContext) -> None:
        if context.is_pre_ping:  # the pool finds out about a connection that was lost, and makes another
            return
        found = self.backend.expected(context.original_exception, self.place)
        if found is not None:
            raise found from context.original_exception
