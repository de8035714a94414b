"""Places on clusters that runs and engines hold, each under a fence: the number of the owner's attempt.

    allocation = store.allocations.place(run, ...)          # written before anything starts there
    store.allocations.renew(allocation)                     # by its driver: a sign of life, and what is wanted of it
    store.holding(allocation).move_run(...)                 # refused once the places were taken away
    store.allocations.end(allocation, "finished", "...")    # by whoever finds out first; the second is refused

An owner has at most one allocation that has not ended.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from orchestrator.errors import OrchError, StaleClaimError
from orchestrator.store import schema
from orchestrator.store.database import Database
from orchestrator.store.records import ENDED, RUN_MOVES, Allocation, Bundle, Place

_TABLE = schema.allocations
LIVE = ("held", "yielding")


class Allocations:
    """The part of the store that `Store.allocations` is."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def live(self) -> list[Allocation]:
        """All that have not ended, the oldest first."""
        return self._found(_TABLE.c.state.in_(LIVE))

    def of(self, owner: str) -> list[Allocation]:
        """All that an owner ever had, the oldest first."""
        return self._found(_TABLE.c.owner == owner)

    def current(self, owner: str) -> Allocation | None:
        """The one that the owner has now."""
        return next((found for found in self.of(owner) if found.state in LIVE), None)

    def state(self, allocation: Allocation) -> str | None:
        """Its state now, which is asked for many times a second."""
        query = select(_TABLE.c.state).where(_this(allocation))
        return next((row["state"] for row in self._db.rows(query)), None)

    def ended(self, engines: Iterable[str] = ()) -> dict[str, list[Allocation]]:
        """Those that have ended, the oldest first, of every run that is in the queue now, and of these engines."""
        queued = select(schema.runs.c.id).where(schema.runs.c.state == "queued")
        waiting = _TABLE.c.owner.in_(queued) | _TABLE.c.owner.in_(list(engines))
        found = defaultdict[str, list[Allocation]](list)
        for allocation in self._found(waiting, _TABLE.c.state == "ended"):
            found[allocation.owner].append(allocation)
        return found

    def place(
        self, owner: str, *, cluster: str, kind: str, bundle: Bundle, placements: Sequence[Place], is_run: bool = True
    ) -> Allocation:
        """Give an owner these places under the next fence; a run leaves the queue in the same transaction.

        Raises OrchError when the run does not wait any more, or the owner has places already.
        """
        with self._db.begin() as connection:
            mine = _TABLE.c.owner == owner
            if connection.execute(select(_TABLE.c.attempt).where(mine, _TABLE.c.state.in_(LIVE))).first():
                raise OrchError(f"{owner} holds places already")
            last = connection.execute(select(func.max(_TABLE.c.attempt)).where(mine)).scalar() or 0
            made = Allocation(
                owner=owner, attempt=last + 1, cluster=cluster, state="held", kind=kind, bundle=bundle,
                placements=list(placements), created=self._db.clock(), renewed=self._db.now(connection), begun=False,
                until=None, ended=None, cause=None, reason=None,
            )  # fmt: skip
            connection.execute(insert(_TABLE).values(**made.model_dump(mode="json")))
            nodes = ", ".join(dict.fromkeys(place.node[:12] for place in made.placements))
            self._event(connection, made, "placed", is_run, message=f"on {nodes}")
            if is_run:
                self._move_run(connection, owner, "running", {})
        return made

    def renew(self, allocation: Allocation) -> Allocation:
        """A sign of life of its driver; the allocation as it is now. Raises StaleClaimError when it has ended."""
        with self._db.begin() as connection:
            enforce(connection, allocation)
            values = {"renewed": self._db.now(connection), "begun": True}
            connection.execute(update(_TABLE).where(_this(allocation)).values(**values))
            return Allocation(**connection.execute(select(_TABLE).where(_this(allocation))).mappings().one())

    def ask_to_yield(self, allocation: Allocation, within_s: float, reason: str) -> None:
        """Its driver is to save a checkpoint and go. Nothing happens when it has gone, or was told already."""
        with self._db.begin() as connection:
            held = update(_TABLE).where(_this(allocation), _TABLE.c.state == "held")
            until = self._db.now(connection) + within_s
            if connection.execute(held.values(state="yielding", until=until, reason=reason)).rowcount:
                is_run = _is_run(connection, allocation.owner)
                self._event(connection, allocation, "yielding", is_run, message=f"{reason}; within {within_s:.0f} s")

    def end(
        self, allocation: Allocation, cause: str, reason: str, *, run: str | None = None, error: OrchError | None = None
    ) -> None:
        """Take the places back, for a cause; `run` is the state that the run gets in the same transaction.

        Raises StaleClaimError, and changes nothing, when it has ended already.
        """
        with self._db.begin() as connection:
            enforce(connection, allocation)
            now = self._db.clock()
            values = {"state": "ended", "ended": now, "cause": cause, "reason": reason}
            connection.execute(update(_TABLE).where(_this(allocation)).values(**values))
            is_run = _is_run(connection, allocation.owner)
            self._event(connection, allocation, "ended", is_run, cause=cause, message=reason)
            if run is not None:
                self._move_run(connection, allocation.owner, run, {"error": error.as_record() if error else None})

    def now(self) -> float:
        """Seconds since 1970 by the database's clock, which `renewed` and `until` are in."""
        with self._db.begin() as connection:
            return self._db.now(connection)

    def _found(self, *conditions: Any) -> list[Allocation]:
        query = select(_TABLE).where(*conditions).order_by(_TABLE.c.created, _TABLE.c.attempt)
        return [Allocation(**row) for row in self._db.rows(query)]

    def _move_run(self, connection: Connection, run: str, state: str, values: dict[str, Any]) -> None:
        now, table = self._db.clock(), schema.runs
        values |= {"queued": now, "wait": None} if state == "queued" else {}
        values |= {"started": func.coalesce(table.c.started, now), "wait": None} if state == "running" else {}
        values |= {"ended": now} if state in ENDED else {}
        self._db.move(connection, table, table.c.id == run, RUN_MOVES, state, values)
        self._db.event(connection, f"run.{state}", run=run, data=values.get("error"))

    def _event(self, connection: Connection, which: Allocation, what: str, is_run: bool, **data: Any) -> None:
        told = {"owner": which.owner, "attempt": which.attempt, **data}
        self._db.event(connection, f"allocation.{what}", run=which.owner if is_run else None, data=told)


def enforce(connection: Connection, allocation: Allocation) -> None:
    """Raises StaleClaimError unless it is still held, in the transaction of what is about to be written."""
    found = connection.execute(select(_TABLE.c.state, _TABLE.c.reason).where(_this(allocation))).one_or_none()
    if found is None or found.state not in LIVE:
        why = f": {found.reason}" if found else ""
        raise StaleClaimError(f"{allocation.name} does not hold its places any more{why}; nothing was written")


def _this(allocation: Allocation) -> Any:
    return (_TABLE.c.owner == allocation.owner) & (_TABLE.c.attempt == allocation.attempt)


def _is_run(connection: Connection, owner: str) -> bool:
    return connection.execute(select(schema.runs.c.id).where(schema.runs.c.id == owner)).first() is not None
