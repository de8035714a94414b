"""The store: runs, stages, artifacts, events, services, releases, benchmarks and schedules in one database.

A change of state is checked against its table of moves (`Database.move`), what became of a stage also against the claim
of the attempt; its event is written in the same transaction. No other call happens inside a transaction.
"""

import copy
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from orchestrator.digests import digest_path
from orchestrator.errors import InputError, NotAllowedError, OrchError, StaleClaimError
from orchestrator.store import allocations, leases, location, records, schema
from orchestrator.store.allocations import Allocations
from orchestrator.store.benchmarks import Benchmarks
from orchestrator.store.database import Database, Row
from orchestrator.store.identity import user
from orchestrator.store.leases import Leases
from orchestrator.store.records import (
    Allocation,
    Baseline,
    Claim,
    Event,
    Lease,
    Release,
    Run,
    Service,
    StageRun,
    Waiting,
)
from orchestrator.store.schedules import Schedules


class Store:
    """The database that the folder `home` uses (`location.py`); safe to open from many processes at once."""

    def __init__(self, home: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Opens or creates the store. Raises InputError if it cannot be written or comes from a newer version."""
        self.home = home
        _make(home)
        self._use(Database(location.url_of(home), clock))

    def _use(self, database: Database) -> None:
        self._db, self.place = database, database.place
        self._benchmarks, self.schedules = Benchmarks(database), Schedules(database)
        self.leases, self.allocations = Leases(database), Allocations(database)

    @property
    def is_shared(self) -> bool:
        """Whether other machines may use it too."""
        return self._db.url.get_backend_name() != "sqlite"

    @property
    def database(self) -> Database:
        """For backup, restore and check, which read whole tables."""
        return self._db

    def under(self, lease: Lease) -> "Store":
        """The same store, every write of which raises StaleClaimError once the lease has a later holder."""
        return self._guarded(lambda connection: leases.enforce(connection, lease))

    def holding(self, allocation: Allocation) -> "Store":
        """The same store, every write of which raises StaleClaimError once the allocation has ended."""
        return self._guarded(lambda connection: allocations.enforce(connection, allocation))

    def _guarded(self, guard: Callable[[Connection], None]) -> "Store":
        other = copy.copy(self)
        other._use(self._db.guarded(guard))
        return other

    # events

    def record(self, kind: str, *, run: str | None = None, stage: str | None = None, service: str | None = None,
               who: str | None = None, **data: Any) -> None:  # fmt: skip
        """Append an event."""
        with self._db.begin() as connection:
            self._db.event(connection, kind, run=run, stage=stage, service=service, who=who, data=data)

    def events(self, *, run: str | None = None, service: str | None = None, after: int = 0) -> list[Event]:
        """Events of a run or of a service in the order they were written, those after the id `after`."""
        query = select(schema.events).where(schema.events.c.id > after).order_by(schema.events.c.id)
        if run is not None:
            query = query.where(schema.events.c.run == run)
        if service is not None:
            query = query.where(schema.events.c.service == service)
        return [Event(**row) for row in self._db.rows(query)]

    def newest(self, kind: str, runs: Collection[str]) -> dict[str, float]:
        """When an event of this kind was last written of each of these runs."""
        table = schema.events.c
        query = select(table.run, func.max(table.time).label("time")).where(table.kind == kind, table.run.in_(runs))
        return {row["run"]: row["time"] for row in self._db.rows(query.group_by(table.run))} if runs else {}

    # runs

    def create_run(self, run: str, name: str, plan: Row, stages: Iterable[tuple[str, str]]) -> None:
        """A queued run with its stages (name, digest), in their order."""
        with self._db.begin() as connection:
            now = self._db.clock()
            row = {"id": run, "name": name, "state": "queued", "owner": user(), "created": now, "queued": now}
            connection.execute(insert(schema.runs).values(**row, plan=plan))
            for position, (stage, digest) in enumerate(stages):
                row = {"run": run, "stage": stage, "position": position, "digest": digest, "state": "pending"}
                connection.execute(insert(schema.stage_runs).values(**row, attempts=0))
            self._db.event(connection, "run.queued", run=run)

    def run(self, run: str) -> Run:
        """The run of that id. Raises InputError when there is none."""
        for row in self._db.rows(select(schema.runs).where(schema.runs.c.id == run)):
            return Run(**row)
        raise InputError(f"no run {run!r} in {self.place}", next_step="`orch status` lists the runs")

    def run_state(self, run: str) -> str | None:
        """Its state alone, which is asked for many times a second; None when there is no such run."""
        query = select(schema.runs.c.state).where(schema.runs.c.id == run)
        return next((row["state"] for row in self._db.rows(query)), None)

    def runs(self, limit: int = 20) -> list[Run]:
        """The newest runs first."""
        return [
            Run(**row) for row in self._db.rows(select(schema.runs).order_by(schema.runs.c.created.desc()).limit(limit))
        ]

    def unfinished(self) -> list[Waiting]:
        """Runs that have not ended, without their plans; the oldest first."""
        table = schema.runs.c
        query = select(table.id, table.state, table.owner, table.created, table.queued)
        query = query.where(table.state.not_in(records.ENDED)).order_by(table.created)
        return [Waiting(**row) for row in self._db.rows(query)]

    def note_waits(self, waits: Mapping[str, Row]) -> None:
        """What queued runs wait for, by run; no event, since it is a forecast that changes all the time."""
        table = schema.runs
        with self._db.begin() as connection:
            for run, wait in waits.items():
                waits_still = (table.c.id == run) & (table.c.state == "queued")
                connection.execute(update(table).where(waits_still).values(wait=dict(wait)))

    def change_plan(self, run: str, plan: Row, *, reason: str) -> None:
        """Replace the plan of a run that has ended, before it is resumed; its stages stay as they are."""
        with self._db.begin() as connection:
            connection.execute(update(schema.runs).where(schema.runs.c.id == run).values(plan=dict(plan)))
            self._db.event(connection, "run.plan_changed", run=run, data={"message": reason})

    def stage_runs(self, run: str) -> list[StageRun]:
        """The stages of a run, in their order."""
        table = schema.stage_runs
        return [
            StageRun(**row) for row in self._db.rows(select(table).where(table.c.run == run).order_by(table.c.position))
        ]

    def finished_stage(self, digest: str) -> StageRun | None:
        """The newest success of a stage with this digest whose artifacts still exist."""
        table = schema.stage_runs
        query = (
            select(table).where(table.c.digest == digest, table.c.state == "succeeded").order_by(table.c.ended.desc())
        )
        for row in self._db.rows(query.limit(1)):
            found = StageRun(**row)
            paths = (found.outputs or {}).get("artifacts", {}).values()
            return found if all(Path(path).exists() for path in paths) else None
        return None

    def runs_of_stage(self, digest: str, limit: int = 20) -> list[str]:
        """Ids of the runs that have a stage with this digest, made or reused; the newest first."""
        table = schema.stage_runs
        query = (
            select(table.c.run)
            .join(schema.runs, schema.runs.c.id == table.c.run)
            .where(table.c.digest == digest, table.c.state.in_(("succeeded", "reused")))
            .order_by(schema.runs.c.created.desc())
        )
        return [row["run"] for row in self._db.rows(query.limit(limit))]

    def move_run(self, run: str, state: str, *, error: OrchError | None = None) -> None:
        """Change a run's state. Raises OrchError if the move is not legal."""
        now = self._db.clock()
        values: dict[str, Any] = {"error": error.as_record() if error else None}
        if state == "queued":
            values |= {"started": None, "ended": None, "queued": now, "wait": None}
        if state == "running":
            values["started"] = now
        if state in records.ENDED:
            values["ended"] = now
        with self._db.begin() as connection:
            key = schema.runs.c.id == run
            self._db.move(connection, schema.runs, key, records.RUN_MOVES, state, values)
            self._db.event(connection, f"run.{state}", run=run, data=values["error"])

    def claim_stage(self, run: str, stage: str) -> Claim:
        """Begin the next attempt of a pending stage. From now on only the returned claim can end it."""
        table = schema.stage_runs
        mine = (table.c.run == run) & (table.c.stage == stage)
        values = {"started": self._db.clock(), "ended": None, "error": None, "attempts": table.c.attempts + 1}
        with self._db.begin() as connection:
            self._db.move(connection, table, mine, records.STAGE_MOVES, "running", values)
            fence = connection.execute(select(table.c.attempts).where(mine)).scalar_one()
            self._db.event(connection, "stage.running", run=run, stage=stage, data={"attempt": fence})
        return Claim(run=run, stage=stage, fence=fence)

    def end_stage(self, claim: Claim, state: str, *, outputs: Row | None = None,
                  error: OrchError | None = None) -> None:  # fmt: skip
        """Say what became of an attempt: `succeeded` with its outputs, `failed`, `cancelled`, or `pending` again.

        Raises StaleClaimError, and writes nothing, when the stage has been taken over since.
        """
        now, table = self._db.clock(), schema.stage_runs
        made = _contents(outputs or {}) if state == "succeeded" else []  # reads files: before the transaction
        values: dict[str, Any] = {"state": state, "error": error.as_record() if error else None}
        values |= {"ended": now} if state != "pending" else {}
        values |= {"outputs": dict(outputs)} if outputs is not None else {}
        assert state in records.STAGE_MOVES["running"], f"an attempt does not end as {state}"
        mine = (table.c.run == claim.run) & (table.c.stage == claim.stage)
        current = mine & (table.c.attempts == claim.fence) & (table.c.state == "running")
        with self._db.begin() as connection:
            if connection.execute(update(table).where(current).values(**values)).rowcount == 0:
                found = connection.execute(select(table.c.attempts, table.c.state).where(mine)).one()
                raise _stale(claim, state, *found)
            data = {"attempt": claim.fence, **(values["error"] or {})}
            self._db.event(connection, f"stage.{state}", run=claim.run, stage=claim.stage, data=data)
            for row in made:
                added = insert(schema.artifacts).values(run=claim.run, stage=claim.stage, created=now, **row)
                connection.execute(added)

    def reuse_stage(self, run: str, stage: str, outputs: Row) -> None:
        """What an earlier run made stands in for running this stage."""
        now = self._db.clock()
        self._move_stage(run, stage, "reused", {"ended": now, "outputs": dict(outputs), "error": None})

    def reset_stage(self, run: str, stage: str, reason: str) -> None:
        """Make it pending again: it was interrupted, or does not stand any more. A claim on it ends."""
        self._move_stage(run, stage, "pending", {"error": None}, reason=reason)

    def _move_stage(self, run: str, stage: str, state: str, values: Row, **data: Any) -> None:
        table = schema.stage_runs
        mine = (table.c.run == run) & (table.c.stage == stage)
        with self._db.begin() as connection:
            self._db.move(connection, table, mine, records.STAGE_MOVES, state, values)
            self._db.event(connection, f"stage.{state}", run=run, stage=stage, data=data)

    def artifacts(self, run: str) -> list[dict[str, Any]]:
        """Artifacts that a run made: digest, stage, name, path, bytes."""
        table = schema.artifacts
        return [dict(row) for row in self._db.rows(select(table).where(table.c.run == run).order_by(table.c.id))]

    # benchmarks

    def add_benchmark(self, result: Row) -> None:
        """Keep a benchmark's result (a `bench.result.Result` as JSON); one of the same id is replaced."""
        self._benchmarks.add(result)

    def benchmark(self, id: str) -> dict[str, Any]:
        """The result of that id, of an id that begins so, or the `latest`. Raises InputError when there is none."""
        return self._benchmarks.find(id)

    def benchmarks(
        self, limit: int = 20, *, run: str | None = None, service: str | None = None, name: str | None = None
    ) -> list[dict[str, Any]]:
        """Results, the newest first: all, or those of a run, a service or a name."""
        return self._benchmarks.newest(limit, run=run, service=service, name=name)

    def set_baseline(self, name: str, id: str) -> str:
        """Compare benchmarks of this name, or of this service, with that one from now on; its whole id."""
        return self._benchmarks.set_baseline(name, id)

    def baseline(self, name: str) -> str | None:
        """Id of the benchmark that those of this name or service are compared with."""
        return next((found.benchmark for found in self.baselines() if found.name == name), None)

    def baselines(self) -> list[Baseline]:
        """All baselines, by name."""
        return self._benchmarks.baselines()

    # services and releases

    def service(self, name: str) -> Service:
        """Raises InputError when nothing was ever released under this name."""
        for row in self._db.rows(select(schema.services).where(schema.services.c.name == name)):
            return Service(**row)
        known = ", ".join(service.name for service in self.services()) or "none"
        raise InputError(f"no service {name!r} (known: {known})", next_step="`orch releases` lists the services")

    def services(self) -> list[Service]:
        """All services, by name."""
        return [Service(**row) for row in self._db.rows(select(schema.services).order_by(schema.services.c.name))]

    def releases(self, service: str | None = None) -> list[Release]:
        """Releases of one service, or of all, oldest first."""
        table = schema.releases
        query = select(table).order_by(table.c.service, table.c.number)
        if service is not None:
            query = query.where(table.c.service == service)
        return [Release(**row) for row in self._db.rows(query)]

    def release(self, service: str, number: int) -> Release:
        """Raises InputError when there is no such release."""
        for release in self.releases(service):
            if release.number == number:
                return release
        raise InputError(f"no release {service}@{number}", next_step=f"`orch releases {service}` lists them")

    def get_or_create_release(self, service: str, digest: str, run: str, spec: Row) -> Release:
        """The release of this service with this digest; a new one gets the next number."""
        table = schema.releases
        with self._db.begin() as connection:
            if connection.execute(select(schema.services).where(schema.services.c.name == service)).first() is None:
                connection.execute(insert(schema.services).values(name=service, version=0))
            mine = table.c.service == service
            found = connection.execute(select(table.c.number).where(mine & (table.c.digest == digest))).scalar()
            if found is None:
                found = 1 + (connection.execute(select(func.max(table.c.number)).where(mine)).scalar() or 0)
                row = {"service": service, "number": found, "digest": digest, "run": run, "state": "stopped"}
                made = insert(table).values(**row, spec=dict(spec), created=self._db.clock(), withdrawn=False)
                connection.execute(made)
                self._db.event(connection, "release.created", run=run, service=service, data={"release": found})
        return self.release(service, found)

    def move_release(self, release: Release, state: str, *, url: str | None = None, model: str | None = None,
                     pid: int | None = None, request_fields: Mapping[str, Any] | None = None,
                     reason: str | None = None) -> None:  # fmt: skip
        """Change a release's state; url, model, pid and request_fields are those of the engine that answers for it from
        now on.
        """
        with self._db.begin() as connection:
            self._db.move(connection, schema.releases, _key(release), records.RELEASE_MOVES, state,
                       {"url": url, "model": model, "pid": pid, "request_fields": request_fields})  # fmt: skip
            self._db.event(connection, f"release.{state}", service=release.service,
                        data={"release": release.number, "reason": reason, "pid": pid})  # fmt: skip

    def switch(
        self, service: str, number: int, *, expected: int | None, kind: str, reason: str | None, withdraw: bool = False
    ) -> None:
        """Make a release the current one instead of `expected`, which `withdraw` marks as bad; all or nothing.

        Raises NotAllowedError when no engine answers for it any more, or when somebody else has switched meanwhile.
        """
        table, now = schema.releases, self._db.clock()
        mine = table.c.service == service
        with self._db.begin() as connection:
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
            self._db.event(connection, kind, service=service, data=data)

    def stop_warm_but(self, service: str, kept: set[int], reason: str) -> list[int]:
        """Stop the warm releases of a service but the `kept` ones and whatever is current now; their numbers."""
        table = schema.releases
        with self._db.begin() as connection:
            current = connection.execute(select(schema.services.c.current).where(schema.services.c.name == service))
            spared = kept | {current.scalar()}
            warm = (table.c.service == service) & (table.c.state == "warm")
            found = [n for n in connection.execute(select(table.c.number).where(warm)).scalars() if n not in spared]
            for number in found:
                values = {"state": "stopped", "url": None, "model": None, "pid": None, "request_fields": None}
                connection.execute(update(table).where(warm & (table.c.number == number)).values(**values))
                data = {"release": number, "reason": reason, "pid": None}
                self._db.event(connection, "release.stopped", service=service, data=data)
        return found

    def routes(self) -> dict[str, Any]:
        """What the gateway needs to route: services with their current release, releases with their engines."""
        fields = ("service", "number", "url", "model", "request_fields", "state")
        return {
            "services": {service.name: {"current": service.current} for service in self.services()},
            "releases": [{name: getattr(release, name) for name in fields} for release in self.releases()],
        }

    def watch(self) -> Callable[[], bool]:
        """A function that says whether another connection has committed since it was last asked; a few microseconds."""
        return self._db.watch()


def _make(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot use {home} as the store: {error}", next_step="set ORCH_HOME to a folder that can be written"
        ) from error


def _stale(claim: Claim, wanted: str, fence: int, state: str) -> StaleClaimError:
    now = f"attempt {fence} has taken over" if fence != claim.fence else f"it is {state}"
    return StaleClaimError(
        f"{claim.run}: attempt {claim.fence} of {claim.stage} ended as {wanted}, but {now}; its result was dropped",
        next_step=f"nothing; `orch status {claim.run}` shows the run as it is",
    )


def _key(release: Release) -> Any:
    return (schema.releases.c.service == release.service) & (schema.releases.c.number == release.number)


def _contents(outputs: Row) -> list[dict[str, Any]]:
    found = []
    for name, path in outputs.get("artifacts", {}).items():
        digest, size = digest_path(Path(path))
        found.append({"name": name, "path": path, "digest": digest, "bytes": size})
    return found
