"""Results of benchmarks in the store, and the baselines that later ones are compared with."""

import difflib
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, func, select

from orchestrator.errors import InputError
from orchestrator.store import schema
from orchestrator.store.database import Database
from orchestrator.store.identity import who
from orchestrator.store.records import Baseline

_TABLE = schema.benchmarks
_LISTED = 5
"""Ids that an error names."""


class Benchmarks:
    """A result is a `bench.result.Result` as JSON: the store reads id, name, created, run, service and source of it."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, result: Mapping[str, Any]) -> None:
        """Keep a result, in the place of one with the same id: a sweep that goes on writes its own again."""
        row = {
            **{field: result[field] for field in ("id", "name", "created")},
            **{field: result.get(field) for field in ("run", "service")},
            "source": result.get("source", "orch"),
            "result": dict(result),
        }
        told = {field: row[field] for field in ("name", "service", "source")} | {"message": row["id"]}
        with self._db.begin() as connection:
            self._db.put(connection, _TABLE, _TABLE.c.id == row["id"], row)
            self._db.event(connection, "benchmark.result_kept", run=row["run"], data=told)

    def find(self, wanted: str) -> dict[str, Any]:
        """By id, by the beginning of only one id, the newest of a name, or the `latest`.

        Raises InputError that names near ones.
        """
        if wanted == "latest":
            found = self.newest(1)
        else:
            found = (
                self._where(_TABLE.c.id == wanted)
                or self._where(func.substr(_TABLE.c.id, 1, len(wanted)) == wanted, limit=_LISTED)
                or self.newest(1, name=wanted)
            )
        if len(found) == 1:
            return found[0]
        raise self._ambiguous(wanted, found) if found else self._unknown(wanted)

    def newest(self, limit: int, **wanted: str | None) -> list[dict[str, Any]]:
        """The newest first; of those whose columns `run`, `service` and `name` are as wanted, where not None."""
        conditions = [_TABLE.c[column] == value for column, value in wanted.items() if value is not None]
        return self._where(*conditions, limit=limit)

    def set_baseline(self, name: str, wanted: str) -> str:
        """From now on benchmarks of this name or service are compared with that one; its id."""
        row = {"name": name, "benchmark": self.find(wanted)["id"], "time": self._db.clock(), "who": who()}
        with self._db.begin() as connection:
            self._db.put(connection, schema.baselines, schema.baselines.c.name == name, row)
            self._db.event(connection, "baseline.set", data={"name": name, "benchmark": row["benchmark"]})
        return str(row["benchmark"])

    def baselines(self) -> list[Baseline]:
        """By name."""
        return [Baseline(**row) for row in self._db.rows(select(schema.baselines).order_by(schema.baselines.c.name))]

    def _where(self, *conditions: ColumnElement[bool], limit: int = 1) -> list[dict[str, Any]]:
        query = select(_TABLE.c.result).where(*conditions).order_by(_TABLE.c.created.desc(), _TABLE.c.id.desc())
        return [row["result"] for row in self._db.rows(query.limit(limit))]

    def _unknown(self, wanted: str) -> InputError:
        ids = [row["id"] for row in self._db.rows(select(_TABLE.c.id).order_by(_TABLE.c.created.desc()))]
        if not ids:
            return InputError(f"no benchmark {wanted!r}: there is none yet", next_step="`orch bench run URL` makes one")
        close = difflib.get_close_matches(wanted, ids, n=_LISTED)
        hint = f"the nearest: {', '.join(close)}" if close else f"the newest: {', '.join(ids[:_LISTED])}"
        return InputError(f"no benchmark {wanted!r} ({hint})", next_step="`orch bench list` shows them")

    @staticmethod
    def _ambiguous(wanted: str, found: list[dict[str, Any]]) -> InputError:
        ids = ", ".join(result["id"] for result in found)
        return InputError(f"several benchmarks begin with {wanted!r}: {ids}", next_step="give more of the id")
