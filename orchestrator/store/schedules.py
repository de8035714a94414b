"""Schedules in the store, and what became of each of their ticks.

A tick is claimed before anything starts: one transaction moves the schedule on to its next tick and writes the row of
this one, so that a tick is never run twice, whoever dies when.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from orchestrator.errors import InputError
from orchestrator.plugins import nearest
from orchestrator.store import schema
from orchestrator.store.database import Database
from orchestrator.store.records import SCHEDULE_RUN_MOVES, Schedule, ScheduleRun

_TABLE, _RUNS = schema.schedules, schema.schedule_runs


class Schedules:
    """The part of the store that `Store.schedules` is."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, schedule: Schedule) -> None:
        """Raises InputError when there is one of that name."""
        webhook = schedule.webhook.get_secret_value() if schedule.webhook else None
        row = schedule.model_dump() | {"webhook": webhook}
        with self._db.begin() as connection:
            if connection.execute(select(_TABLE.c.name).where(_TABLE.c.name == schedule.name)).first():
                raise InputError(
                    f"there is a schedule {schedule.name!r} already",
                    next_step=f"`orch schedule rm {schedule.name}` first, or another --name",
                )
            connection.execute(insert(_TABLE).values(**row))
            told = {"schedule": schedule.name, "cron": schedule.cron, "timezone": schedule.timezone}
            self._db.event(connection, "schedule.added", data=told)

    def find(self, name: str) -> Schedule:
        """Raises InputError with the nearest name when there is none."""
        known = {schedule.name: schedule for schedule in self.all()}
        if name not in known:
            raise InputError(
                f"no schedule {name!r}; {nearest(name, list(known))}", next_step="`orch schedule list` shows them"
            )
        return known[name]

    def all(self) -> list[Schedule]:
        """By name."""
        return [Schedule(**row) for row in self._db.rows(select(_TABLE).order_by(_TABLE.c.name))]

    def pause(self, name: str) -> None:
        """No tick is claimed until it is resumed."""
        self._change(name, "schedule.paused", paused=True)

    def resume(self, name: str, next_tick: float) -> None:
        """Go on at `next_tick`; what passed meanwhile was not missed."""
        self._change(name, "schedule.resumed", paused=False, next_tick=next_tick)

    def remove(self, name: str) -> None:
        """Its history stays."""
        self.find(name)
        with self._db.begin() as connection:
            connection.execute(delete(_TABLE).where(_TABLE.c.name == name))
            self._db.event(connection, "schedule.removed", data={"schedule": name})

    def claim(self, schedule: Schedule, upcoming: float, ticks: Sequence[tuple[float, str, str | None]]) -> bool:
        """Write what becomes of the ticks that are due (tick, state, reason), and move on to the `upcoming` one.

        False, and nothing is written, when the schedule was claimed, paused, resumed or removed meanwhile.
        """
        mine = (_TABLE.c.name == schedule.name) & (_TABLE.c.next_tick == schedule.next_tick) & ~_TABLE.c.paused
        with self._db.begin() as connection:
            if connection.execute(update(_TABLE).where(mine).values(next_tick=upcoming)).rowcount == 0:
                return False
            for tick, state, reason in ticks:
                self._insert(connection, schedule.name, tick, state, reason)
        return True

    def queue(self, name: str, tick: float, reason: str) -> None:
        """Run it once, apart from its ticks. Raises InputError when there is no such schedule."""
        self.find(name)
        with self._db.begin() as connection:
            self._insert(connection, name, tick, "queued", reason)

    def move(self, run: ScheduleRun, state: str, *, reason: str | None = None, exit_code: int | None = None,
             log: str | None = None) -> None:  # fmt: skip
        """Change what became of a tick. Raises OrchError if the move is not legal."""
        if state == "running":
            values: dict[str, Any] = {"started": self._db.clock(), "log": log}
        else:
            values = {"ended": self._db.clock(), "exit_code": exit_code}
        values |= {"reason": reason} if reason else {}
        with self._db.begin() as connection:
            self._db.move(connection, _RUNS, _RUNS.c.id == run.id, SCHEDULE_RUN_MOVES, state, values)
            data = {"schedule": run.schedule, "tick": run.tick, "reason": reason, "exit_code": exit_code}
            self._db.event(connection, f"schedule.{state}", data=data)

    def note_pid(self, run: ScheduleRun, pid: int) -> None:
        """The process that a running tick has."""
        with self._db.begin() as connection:
            connection.execute(update(_RUNS).where(_RUNS.c.id == run.id).values(pid=pid))
            data = {"schedule": run.schedule, "tick": run.tick, "pid": pid}
            self._db.event(connection, "schedule.process", data=data)

    def open_runs(self) -> list[ScheduleRun]:
        """Those that are queued or running, in the order in which they were claimed."""
        query = select(_RUNS).where(_RUNS.c.state.in_(("queued", "running"))).order_by(_RUNS.c.id)
        return [ScheduleRun(**row) for row in self._db.rows(query)]

    def history(self, name: str | None = None, limit: int = 20) -> list[ScheduleRun]:
        """What became of the ticks of one schedule, or of all, the newest first."""
        query = select(_RUNS).order_by(_RUNS.c.id.desc()).limit(limit)
        if name is not None:
            query = query.where(_RUNS.c.schedule == name)
        return [ScheduleRun(**row) for row in self._db.rows(query)]

    def last_runs(self) -> dict[str, ScheduleRun]:
        """What became of the newest tick of every schedule, by its name."""
        newest = select(func.max(_RUNS.c.id)).group_by(_RUNS.c.schedule)
        rows = self._db.rows(select(_RUNS).where(_RUNS.c.id.in_(newest)))
        return {row["schedule"]: ScheduleRun(**row) for row in rows}

    def _insert(self, connection: Connection, name: str, tick: float, state: str, reason: str | None) -> None:
        row = {"schedule": name, "tick": tick, "state": state, "reason": reason}
        connection.execute(insert(_RUNS).values(**row))
        self._db.event(connection, f"schedule.{state}", data=row)

    def _change(self, name: str, kind: str, **values: Any) -> None:
        self.find(name)
        with self._db.begin() as connection:
            connection.execute(update(_TABLE).where(_TABLE.c.name == name).values(**values))
            self._db.event(connection, kind, data={"schedule": name})
