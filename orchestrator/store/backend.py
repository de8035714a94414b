"""What a kind of database is to the store: the shape of `sqlite.py` and of `postgresql.py`; nothing else differs."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from sqlalchemy import URL, Connection, Engine

from orchestrator.errors import InputError, OrchError


class Backend(Protocol):
    """A module of this folder (mypy checks both against it)."""

    @property
    def READING(self) -> Mapping[str, Any]:  # noqa: N802
        """Execution options of a connection that only reads."""

    @property
    def SNAPSHOT(self) -> Mapping[str, Any]:  # noqa: N802
        """Execution options of a transaction that sees one moment, however many queries it makes."""

    @property
    def NOW(self) -> str:  # noqa: N802
        """SQL of the seconds since 1970 by the database's own clock."""

    def engine(self, url: URL) -> Engine: ...
    def after_opening(self, engine: Engine) -> None: ...
    def version(self, connection: Connection) -> int: ...
    def set_version(self, connection: Connection, version: int) -> None: ...
    def ddl(self, statement: str) -> str: ...
    def watch(self, engine: Engine) -> Callable[[], bool]: ...
    def damage(self, connection: Connection) -> list[str]: ...
    def after_copy(self, connection: Connection) -> None: ...
    def expected(self, error: BaseException, place: str) -> OrchError | None: ...


def backend_of(url: URL) -> Backend:
    """The module for a store's URL. Raises InputError when its driver is not installed."""
    if url.get_backend_name() == "sqlite":
        from orchestrator.store import sqlite

        return sqlite
    try:
        from orchestrator.store import postgresql
    except ImportError as error:
        raise InputError(
            f"a store on PostgreSQL needs psycopg, which cannot be loaded: {error}",
            next_step="pip install 'orch[postgres]'",
        ) from error
    return postgresql
