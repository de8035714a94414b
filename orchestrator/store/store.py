"""The store: runs, stages, artifacts, events, services and releases in SQLite, through SQLAlchemy.

Every change of state goes through `_move`, which checks the move against its table and writes the event in the same
transaction. No network or process call happens inside a transaction.
"""

import getpass
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    ExceptionContext,
    Select,
    Table,
    create_engine,
    event,
    func,
    insert,
    select,
    text,
    update,
)

from orchestrator.digests import digest_path
from orchestrator.errors import InputError, NotAllowedError, OrchError, disk_full
from orchestrator.store import records, schema
from orchestrator.store.records import Event, Release, Run, Service, StageRun

Row = Mapping[str, Any]
BALLAST_BYTES = 4_000_000
"""A spare file beside the store, given up when the disk is full, so that this very failure can be written down."""


class Store:
    """One SQLite file, `orch.db` in the folder `home`; safe to open from many processes at once."""

    def __init__(self, home: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Opens or creates the store. Raises InputError if it cannot be written or comes from a newer version."""
        self.home, self._clock = home, clock
        self.path = home / "orch.db"
        try:
            home.mkdir(parents=True, exist_ok=True)
            self._engine = create_engine(f"sqlite:///{self.path}", connect_args={"timeout": 30})
            event.listen(self._engine, "connect", _pragmas)
            event.listen(self._engine, "begin", _begin)
            event.listen(self._engine, "handle_error", self._when_full)
            self._reader = self._engine.execution_options(reader=True)
            self._create()
            self._keep_ballast()
        except Exception as error:
            if isinstance(error, OrchError):
                raise
            raise InputError(
                f"cannot use {home} as the store: {error.__cause__ or error}",
                next_step="set ORCH_HOME to a folder that can be written",
            ) from error

    def _create(self) -> None:
        with self._engine.begin() as connection:
            version = connection.execute(text("PRAGMA user_version")).scalar_one()
            if version > schema.VERSION:
                raise InputError(
                    f"{self.path} was written by a newer version (schema {version}, this is {schema.VERSION})",
                    next_step="upgrade orch, or set ORCH_HOME to another folder",
                )
            if version < schema.VERSION:
                schema.metadata.create_all(connection)
                connection.execute(text(f"PRAGMA user_version = {schema.VERSION}"))

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

    # events

    def record(self, kind: str, *, run: str | None = None, stage: str | None = None, service: str | None = None,
               who: str | None = None, **data: Any) -> None:  # fmt: skip
        """Append an event."""
        with self._engine.begin() as connection:
            self._event(connection, kind, run=run, stage=stage, service=service, who=who, data=data)

    def events(self, *, run: str | None = None, service: str | None = None, after: int = 0) -> list[Event]:
        """Events of a run or of a service in the order they were written, those after the id `after`."""
        query = select(schema.events).where(schema.events.c.id > after).order_by(schema.events.c.id)
        if run is not None:
            query = query.where(schema.events.c.run == run)
        if service is not None:
            query = query.where(schema.events.c.service == service)
        return [Event(**row) for row in self._rows(query)]

    def _event(self, connection: Connection, kind: str, *, run: str | None = None, stage: str | None = None,
               service: str | None = None, who: str | None = None, data: Row | None = None) -> None:  # fmt: skip
        row = {"time": self._clock(), "run": run, "stage": stage, "service": service, "kind": kind}
        connection.execute(insert(schema.events).values(**row, who=who or user(), data=dict(data or {})))

    # runs

    def create_run(self, run: str, name: str, plan: Row, stages: Iterable[tuple[str, str]]) -> None:
        """A queued run with its stages (name, digest), in their order."""
        with self._engine.begin() as connection:
            row = {"id": run, "name": name, "state": "queued", "owner": user(), "created": self._clock()}
            connection.execute(insert(schema.runs).values(**row, plan=plan))
            for position, (stage, digest) in enumerate(stages):
                row = {"run": run, "stage": stage, "position": position, "digest": digest, "state": "pending"}
                connection.execute(insert(schema.stage_runs).values(**row, attempts=0))
            self._event(connection, "run.queued", run=run)

    def run(self, run: str) -> Run:
        """The run of that id. Raises InputError when there is none."""
        for row in self._rows(select(schema.runs).where(schema.runs.c.id == run)):
            return Run(**row)
        raise InputError(f"no run {run!r} in {self.path}", next_step="`orch status` lists the runs")

    def runs(self, limit: int = 20) -> list[Run]:
        """The newest runs first."""
        return [
            Run(**row) for row in self._rows(select(schema.runs).order_by(schema.runs.c.created.desc()).limit(limit))
        ]

    def stage_runs(self, run: str) -> list[StageRun]:
        """The stages of a run, in their order."""
        table = schema.stage_runs
        return [
            StageRun(**row) for row in self._rows(select(table).where(table.c.run == run).order_by(table.c.position))
        ]

    def finished_stage(self, digest: str) -> StageRun | None:
        """The newest success of a stage with this digest whose artifacts still exist."""
        table = schema.stage_runs
        query = (
            select(table).where(table.c.digest == digest, table.c.state == "succeeded").order_by(table.c.ended.desc())
        )
        for row in self._rows(query.limit(1)):
            found = StageRun(**row)
            paths = (found.outputs or {}).get("artifacts", {}).values()
            return found if all(Path(path).exists() for path in paths) else None
        return None

    def move_run(self, run: str, state: str, *, error: OrchError | None = None) -> None:
        """Change a run's state. Raises OrchError if the move is not legal."""
        now = self._clock()
        values: dict[str, Any] = {"error": error.as_record() if error else None}
        if state == "queued":
            values |= {"started": None, "ended": None}
        if state == "running":
            values["started"] = now
        if state in records.ENDED:
            values["ended"] = now
        with self._engine.begin() as connection:
            key = schema.runs.c.id == run
            self._move(connection, schema.runs, key, records.RUN_MOVES, state, values)
            self._event(connection, f"run.{state}", run=run, data=values["error"])

    def move_stage(self, run: str, stage: str, state: str, *, outputs: Row | None = None,
                   error: OrchError | None = None) -> None:  # fmt: skip
        """Change a stage's state; a success stores its outputs and lists its artifacts."""
        now, table = self._clock(), schema.stage_runs
        made = _contents(outputs or {}) if state == "succeeded" else []  # reads files: before the transaction
        values: dict[str, Any] = {"error": error.as_record() if error else None}
        if state == "running":
            values |= {"started": now, "ended": None, "attempts": table.c.attempts + 1}
        elif state != "pending":
            values["ended"] = now
        if outputs is not None:
            values["outputs"] = dict(outputs)
        with self._engine.begin() as connection:
            key = (table.c.run == run) & (table.c.stage == stage)
            self._move(connection, table, key, records.STAGE_MOVES, state, values)
            self._event(connection, f"stage.{state}", run=run, stage=stage, data=values["error"])
            for row in made:
                connection.execute(insert(schema.artifacts).values(run=run, stage=stage, created=now, **row))

    def artifacts(self, run: str) -> list[dict[str, Any]]:
        """Artifacts that a run made: digest, stage, name, path, bytes."""
        table = schema.artifacts
        return [dict(row) for row in self._rows(select(table).where(table.c.run == run).order_by(table.c.id))]

    def add_benchmark(self, run: str, digest: str, metrics: Row, report: Row) -> None:
        """Keep a benchmark's result for later comparisons."""
        row = {"run": run, "digest": digest, "metrics": dict(metrics), "report": dict(report)}
        with self._engine.begin() as connection:
            connection.execute(insert(schema.benchmark_results).values(**row, created=self._clock()))

    def benchmarks(self, run: str) -> list[dict[str, Any]]:
        """Benchmark results of a run: created, digest, metrics, report."""
        table = schema.benchmark_results
        return [dict(row) for row in self._rows(select(table).where(table.c.run == run).order_by(table.c.id))]

    # services and releases

    def service(self, name: str) -> Service:
        """Raises InputError when nothing was ever released under this name."""
        for row in self._rows(select(schema.services).where(schema.services.c.name == name)):
            return Service(**row)
        known = ", ".join(service.name for service in self.services()) or "none"
        raise InputError(f"no service {name!r} (known: {known})", next_step="`orch releases` lists the services")

    def services(self) -> list[Service]:
        """All services, by name."""
        return [Service(**row) for row in self._rows(select(schema.services).order_by(schema.services.c.name))]

    def releases(self, service: str | None = None) -> list[Release]:
        """Releases of one service, or of all, oldest first."""
        table = schema.releases
        query = select(table).order_by(table.c.service, table.c.number)
        return [
            Release(**row) for row in self._rows(query if service is None else query.where(table.c.service == service))
        ]

    def release(self, service: str, number: int) -> Release:
        """Raises InputError when there is no such release."""
        for release in self.releases(service):
            if release.number == number:
                return release
        raise InputError(f"no release {service}@{number}", next_step=f"`orch releases {service}` lists them")

    def get_or_create_release(self, service: str, digest: str, run: str, spec: Row) -> Release:
        """The release of this service with this digest; a new one gets the next number."""
        table = schema.releases
        with self._engine.begin() as connection:
            connection.execute(
                text("INSERT OR IGNORE INTO services (name, version) VALUES (:name, 0)"), {"name": service}
            )
            mine = table.c.service == service
            found = connection.execute(select(table.c.number).where(mine & (table.c.digest == digest))).scalar()
            if found is None:
                found = 1 + (connection.execute(select(func.max(table.c.number)).where(mine)).scalar() or 0)
                row = {"service": service, "number": found, "digest": digest, "run": run, "state": "stopped"}
                connection.execute(insert(table).values(**row, spec=dict(spec), created=self._clock(), withdrawn=False))
                self._event(connection, "release.created", run=run, service=service, data={"release": found})
        return self.release(service, found)

    def move_release(self, release: Release, state: str, *, url: str | None = None, model: str | None = None,
                     pid: int | None = None, reason: str | None = None) -> None:  # fmt: skip
        """Change a release's state; url, model and pid are those of the engine that answers for it from now on."""
        with self._engine.begin() as connection:
            self._move(connection, schema.releases, _key(release), records.RELEASE_MOVES, state,
                       {"url": url, "model": model, "pid": pid})  # fmt: skip
            self._event(connection, f"release.{state}", service=release.service,
                        data={"release": release.number, "reason": reason, "pid": pid})  # fmt: skip

    def switch(
        self, service: str, number: int, *, expected: int | None, kind: str, reason: str | None, withdraw: bool = False
    ) -> None:
        """Make a release the current one instead of `expected`, which `withdraw` marks as bad; all or nothing.

        Raises NotAllowedError when no engine answers for it any more, or when somebody else has switched meanwhile.
        """
        table, now = schema.releases, self._clock()
        mine = table.c.service == service
        with self._engine.begin() as connection:
            named = schema.services.c.name == service
            if connection.execute(select(table.c.state).where(mine & (table.c.number == number))).scalar() != "warm":
                raise NotAllowedError(f"no engine answers for {service}@{number} any more; nothing was switched")
            if connection.execute(select(schema.services.c.current).where(named)).scalar() != expected:
                raise NotAllowedError(f"{service} was switched by somebody else meanwhile; nothing was switched")
            version = schema.services.c.version + 1
            connection.execute(update(schema.services).where(named).values(current=number, version=version))
            marks = {"promoted": now, "withdrawn": False}
            connection.execute(update(table).where(mine & (table.c.number == number)).values(**marks))
            if withdraw and expected is not None:
                connection.execute(update(table).where(mine & (table.c.number == expected)).values(withdrawn=True))
            data = {"release": number, "from": expected, "reason": reason}
            self._event(connection, kind, service=service, data=data)

    def stop_warm_but(self, service: str, kept: set[int], reason: str) -> list[int]:
        """Stop the warm releases of a service but the `kept` ones and whatever is current now; their numbers."""
        table = schema.releases
        with self._engine.begin() as connection:
            current = connection.execute(select(schema.services.c.current).where(schema.services.c.name == service))
            spared = kept | {current.scalar()}
            warm = (table.c.service == service) & (table.c.state == "warm")
            found = [n for n in connection.execute(select(table.c.number).where(warm)).scalars() if n not in spared]
            for number in found:
                values = {"state": "stopped", "url": None, "model": None, "pid": None}
                connection.execute(update(table).where(warm & (table.c.number == number)).values(**values))
                data = {"release": number, "reason": reason, "pid": None}
                self._event(connection, "release.stopped", service=service, data=data)
        return found

    def routes(self) -> dict[str, Any]:
        """What the gateway needs to route: services with their current release, releases with their engines."""
        fields = ("service", "number", "url", "model", "state")
        return {
            "services": {service.name: {"current": service.current} for service in self.services()},
            "releases": [{name: getattr(release, name) for name in fields} for release in self.releases()],
        }

    def watch(self) -> Callable[[], bool]:
        """A function that says whether another connection has committed since it was last asked; a few microseconds."""
        connection = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, check_same_thread=False)
        seen: int | None = None

        def changed() -> bool:
            nonlocal seen
            before, seen = seen, connection.execute("PRAGMA data_version").fetchone()[0]
            return seen != before

        return changed

    # plumbing

    def _rows(self, query: Select[Any]) -> list[Row]:
        with self._reader.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def _move(self, connection: Connection, table: Table, key: Any, moves: Mapping[str, set[str]], state: str,
              values: Row) -> None:  # fmt: skip
        allowed = [before for before, after in moves.items() if state in after]
        done = connection.execute(update(table).where(key, table.c.state.in_(allowed)).values(state=state, **values))
        if done.rowcount == 0:
            now = connection.execute(select(table.c.state).where(key)).scalar()
            raise OrchError(f"{table.name}: cannot go from {now!r} to {state!r}")


def _key(release: Release) -> Any:
    return (schema.releases.c.service == release.service) & (schema.releases.c.number == release.number)


def _contents(outputs: Row) -> list[dict[str, Any]]:
    found = []
    for name, path in outputs.get("artifacts", {}).items():
        digest, size = digest_path(Path(path))
        found.append({"name": name, "path": path, "digest": digest, "bytes": size})
    return found


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
