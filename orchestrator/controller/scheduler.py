"""What the scheduler does in one round: end what has ended, claim the ticks that are due, start what is next.

One command runs at a time, over all schedules: two benchmarks at once would measure each other. The others wait in the
order of their ticks. Everything is in the store before the next thing begins, so that a scheduler that is killed at any
line leaves nothing that its successor could run twice; its commands die with it.
"""

import socket
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from orchestrator import processes, webhook
from orchestrator.controller import ticks
from orchestrator.errors import GateFailedError, OrchError
from orchestrator.store.records import Schedule, ScheduleRun
from orchestrator.store.store import Store


class Process(Protocol):
    """A command that was started; `processes.GuardedProcess` is one."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def stop(self) -> int: ...


Starter = Callable[[list[str], Path, Path], Process]
"""Starts `orch` with these arguments; its output goes to the first path, it runs in the second."""


def start_orch(arguments: list[str], log: Path, directory: Path) -> processes.GuardedProcess:
    """`orch ARGUMENTS`, which dies with us."""
    return processes.start([sys.executable, "-m", "orchestrator.cli.main", *arguments], log=log, directory=directory)


class Scheduler:
    """Call `recover` once, `step` again and again, and `stop` at the end; none of them raises for a failed command."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], float],
        say: Callable[[str], None],
        start: Starter = start_orch,
        post: Callable[[str, Mapping[str, Any]], None] = webhook.post,
    ) -> None:
        self._store, self._clock, self._say, self._start, self._post = store, clock, say, start, post
        self._current: tuple[ScheduleRun, Process] | None = None

    def recover(self) -> None:
        """Before the first round: give up what has waited for too long since an earlier scheduler ended."""
        schedules = self._schedules()
        for run in self._store.schedules.open_runs():
            schedule = schedules.get(run.schedule)
            if run.state == "queued" and schedule and ticks.too_late(schedule, run.tick, self._clock()):
                self._store.schedules.move(run, "missed", reason="no scheduler ran when it was its turn")

    def step(self) -> None:
        """One round; takes no longer than a webhook."""
        self._collect()
        self._close_orphans()
        self._claim()
        self._start_next()

    def stop(self) -> None:
        """Stop the command that runs."""
        if self._current:
            run, process = self._current
            process.stop()
            self._current = None
            self._store.schedules.move(run, "failed", reason="interrupted: the scheduler was stopped")

    def _schedules(self) -> dict[str, Schedule]:
        return {schedule.name: schedule for schedule in self._store.schedules.all()}

    def _collect(self) -> None:
        if not self._current:
            return
        run, process = self._current
        code = process.poll()
        if code is None and run.schedule not in self._schedules():
            self._end(run, process.stop(), "stopped: the schedule was removed")
        elif code is not None:
            self._end(run, code, _words(code))

    def _close_orphans(self) -> None:
        """What an earlier scheduler ran has died with it."""
        current = self._current[0].id if self._current else None
        for run in self._store.schedules.open_runs():
            if run.state == "running" and run.id != current:
                self._end(run, None, "interrupted: the scheduler died while it ran")

    def _end(self, run: ScheduleRun, code: int | None, reason: str | None) -> None:
        state = "failed" if reason else "succeeded"
        self._store.schedules.move(run, state, exit_code=code, reason=reason)
        if self._current and self._current[0].id == run.id:
            self._current = None
        self._say(f"{run.schedule}: {state}{f', {reason}' if reason else ''}")
        schedule = self._schedules().get(run.schedule)
        if reason and schedule and schedule.webhook:
            self._tell(schedule.webhook.get_secret_value(), _payload(schedule, run, code, reason))

    def _tell(self, url: str, payload: Mapping[str, Any]) -> None:
        try:
            self._post(url, payload)
        except OrchError as error:
            self._say(error.message)
            self._store.record("schedule.webhook_failed", schedule=payload["schedule"], message=error.message)

    def _claim(self) -> None:
        open_runs = self._store.schedules.open_runs()
        for schedule in self._schedules().values():
            states = {run.state for run in open_runs if run.schedule == schedule.name}
            due = ticks.due(schedule, self._clock(), running="running" in states, queued="queued" in states)
            if due:
                self._store.schedules.claim(schedule, due.upcoming, due.ticks)

    def _start_next(self) -> None:
        schedules = self._schedules()
        for run in self._store.schedules.open_runs():
            if self._current:
                return
            if run.schedule in schedules:
                self._begin(schedules[run.schedule], run)
            else:
                self._store.schedules.move(run, "skipped", reason="the schedule was removed")

    def _begin(self, schedule: Schedule, run: ScheduleRun) -> None:
        stamp = f"{datetime.fromtimestamp(run.tick, UTC):%Y%m%dT%H%M%SZ}"
        log = self._store.home / "schedules" / schedule.name / f"{stamp}.log"
        self._store.schedules.move(run, "running", log=str(log))  # before it starts: never twice
        run = run.model_copy(update={"state": "running", "log": str(log)})
        self._say(f"{schedule.name}: starts, its output goes to {log}")
        try:
            process = self._start(schedule.command, log, Path(schedule.cwd))
        except OSError as error:
            self._end(run, None, f"could not be started: {error}")
            return
        self._current = run, process
        self._store.schedules.note_pid(run, process.pid)


def _words(code: int) -> str | None:
    if code == 0:
        return None
    why = ": a gate failed, or a number got worse" if code == GateFailedError.exit_code else ""
    return f"{processes.died_of(code)}{why}"


def _payload(schedule: Schedule, run: ScheduleRun, code: int | None, reason: str) -> dict[str, Any]:
    """Without the command and its output: they leave the house, and may hold secrets."""
    regressed = code == GateFailedError.exit_code and schedule.command[0] == "bench"
    return {
        "event": "benchmark.regressed" if regressed else "schedule.failed",
        "text": f"orch: schedule {schedule.name} on {socket.gethostname()} failed: {reason}",
        "schedule": schedule.name,
        "tick": datetime.fromtimestamp(run.tick, UTC).isoformat(),
        "exit_code": code,
        "reason": reason,
        "log": run.log,
        "host": socket.gethostname(),
    }
