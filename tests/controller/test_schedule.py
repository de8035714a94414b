"""The scheduler over a real store, with a clock that is set and processes that end when they are told to."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.controller import schedule, scheduler
from orchestrator.controller.scheduler import Scheduler
from orchestrator.errors import InfrastructureError, InputError, NotAllowedError
from orchestrator.store.store import Store
from tests.test_webhook import receiving

START = datetime(2026, 11, 24, 2, 0, tzinfo=UTC).timestamp()
HOUR, DAY = 3600.0, 86400.0
NIGHTLY = ["bench", "run", "recipe.yaml"]


class FakeProcess:
    """Runs until `code` is set."""

    def __init__(self, arguments: list[str], log: Path, directory: Path) -> None:
        self.arguments, self.log, self.directory = arguments, log, directory
        self.pid, self.code = 4242, None
        self.stopped = False

    code: int | None

    def poll(self) -> int | None:
        return self.code

    def stop(self) -> int:
        self.stopped = True
        return 128 + signal.SIGTERM


class World:
    """A store with its scheduler; `restart` is another scheduler on the same store."""

    def __init__(self, home: Path) -> None:
        self.now = START
        self.store = Store(home, clock=self.clock)
        self.said: list[str] = []
        self.posted: list[tuple[str, Mapping[str, Any]]] = []
        self.started: list[FakeProcess] = []
        self.restart()

    def clock(self) -> float:
        return self.now

    def restart(self) -> None:
        self.scheduler = Scheduler(
            self.store, clock=self.clock, say=self.said.append, start=self._start, post=self._post
        )
        self.scheduler.recover()

    def add(self, name: str = "nightly", cron: str = "0 3 * * *", **fields: Any) -> None:
        cwd = self.store.home
        schedule.add(self.store, name, NIGHTLY, cron=cron, timezone="UTC", cwd=cwd, now=self.now, **fields)

    def step(self, *, after: float = 1) -> None:
        self.now += after
        self.scheduler.step()

    def end(self, code: int) -> None:
        self.started[-1].code = code

    def states(self, name: str | None = None) -> list[tuple[str, str | None]]:
        """Oldest first."""
        return [(run.state, run.reason) for run in reversed(self.store.schedules.history(name))]

    def _start(self, arguments: list[str], log: Path, directory: Path) -> FakeProcess:
        self.started.append(FakeProcess(arguments, log, directory))
        return self.started[-1]

    def _post(self, url: str, payload: Mapping[str, Any]) -> None:
        self.posted.append((url, payload))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_tick_starts_its_command_once_and_its_end_is_kept(world: World) -> None:
    world.add()
    world.step(after=HOUR - 1)
    assert not world.started
    world.step()
    world.step()
    [process] = world.started
    assert (process.arguments, process.directory) == (NIGHTLY, world.store.home)
    assert process.log == world.store.home / "schedules" / "nightly" / "20261124T030000Z.log"
    [run] = world.store.schedules.history()
    assert (run.state, run.tick, run.pid, run.log) == ("running", START + HOUR, 4242, str(process.log))
    world.end(0)
    world.step()
    world.step()
    [run] = world.store.schedules.history()
    assert (run.state, run.exit_code, run.ended) == ("succeeded", 0, world.now - 1)
    assert world.store.schedules.find("nightly").next_tick == START + HOUR + DAY
    assert len(world.started) == 1


def test_two_schedules_at_the_same_time_run_one_after_the_other(world: World) -> None:
    world.add("first")
    world.add("second")
    world.step(after=HOUR)
    assert len(world.started) == 1
    assert world.states("second") == [("queued", None)]
    world.end(0)
    world.step()
    assert world.states("first") == [("succeeded", None)]
    assert world.states("second") == [("running", None)]


def test_an_overlapping_tick_is_skipped(world: World) -> None:
    world.add(cron="0 * * * *")
    world.step(after=HOUR)
    world.step(after=HOUR)
    assert world.states() == [("running", None), ("skipped", "the tick before had not ended")]
    world.end(0)
    world.step(after=HOUR)
    assert [state for state, _ in world.states()] == ["succeeded", "skipped", "running"]


def test_an_overlapping_tick_waits_where_the_policy_says_so_but_only_one(world: World) -> None:
    world.add(cron="0 * * * *", overlap="queue")
    for _ in range(3):
        world.step(after=HOUR)
    assert [state for state, _ in world.states()] == ["running", "queued", "skipped"]
    world.end(0)
    world.step()
    assert [state for state, _ in world.states()] == ["succeeded", "running", "skipped"]


def test_a_failure_is_told_with_its_cause_and_without_the_command(world: World) -> None:
    world.add(webhook_url="https://hooks.example.com/T0KEN")
    world.step(after=HOUR)
    world.end(5)
    world.step()
    [(url, payload)] = world.posted
    assert url == "https://hooks.example.com/T0KEN"
    assert payload["event"] == "schedule.failed"
    assert payload["text"].endswith("failed: exit code 5")
    assert (payload["schedule"], payload["exit_code"]) == ("nightly", 5)
    assert payload["tick"] == "2026-11-24T03:00:00+00:00"
    assert payload["log"] == str(world.started[0].log)
    assert "recipe.yaml" not in json.dumps(payload)
    world.step(after=DAY)
    world.end(0)
    world.step()
    assert len(world.posted) == 1, "a success is not told"


def test_a_regression_is_told_as_one(world: World) -> None:
    world.add(webhook_url="https://hooks.example.com/T0KEN")
    world.step(after=HOUR)
    world.end(4)
    world.step()
    assert world.posted[0][1]["event"] == "benchmark.regressed"
    assert world.states() == [("failed", "exit code 4: a gate failed, or a number got worse")]


def test_a_webhook_that_cannot_be_reached_breaks_nothing_and_is_noted_without_its_secret(world: World) -> None:
    with receiving(400) as receiver:
        world.add(webhook_url=receiver.url)
        world.scheduler = Scheduler(world.store, clock=world.clock, say=world.said.append, start=world._start)
        world.step(after=HOUR)
        world.end(5)
        world.step()
    assert receiver.requests[0][2]["event"] == "schedule.failed"
    [event] = [event for event in world.store.events() if event.kind == "schedule.webhook_failed"]
    assert "HTTP 400" in event.data["message"]
    everything = json.dumps([event.data for event in world.store.events()]) + "".join(world.said)
    assert "T0KEN" not in everything
    assert "T0KEN" not in repr(world.store.schedules.all())
    world.step(after=DAY)
    assert len(world.started) == 2


def test_what_ran_when_the_scheduler_died_is_failed_and_not_run_again(world: World) -> None:
    world.add(webhook_url="https://hooks.example.com/T0KEN")
    world.step(after=HOUR)
    world.restart()
    world.step()
    assert world.states() == [("failed", "interrupted: the scheduler died while it ran")]
    assert len(world.started) == 1
    assert "interrupted" in world.posted[0][1]["text"]


class Killed(BaseException):
    """What `kill -9` is to a process."""


@pytest.mark.parametrize("fatal", [1, 2, 3, 4])
def test_a_scheduler_that_is_killed_at_any_write_runs_no_tick_twice(world: World, fatal: int) -> None:
    world.add()
    begin, writes = world.store._db.begin, iter(range(1, fatal + 1))

    def dying() -> Any:
        if next(writes) == fatal:
            raise Killed
        return begin()

    def a_night() -> None:
        world.step(after=HOUR)
        world.end(0)
        world.step()

    world.store._db.begin = dying  # type: ignore[method-assign]
    with pytest.raises(Killed):
        a_night()
    world.store._db.begin = begin  # type: ignore[method-assign]
    world.restart()
    world.step()
    for process in world.started:
        process.code = 0
    world.step()
    [(state, reason)] = world.states()
    assert len(world.started) == 1
    # the writes: claim, running, pid, end; before `running` was written nothing had been started
    assert (state, reason) == (
        ("succeeded", None) if fatal <= 2 else ("failed", "interrupted: the scheduler died while it ran")
    )


def test_ticks_that_passed_while_no_scheduler_ran_are_missed_or_run_once(world: World) -> None:
    world.add("skips")
    world.add("catches-up", missed="run_once")
    world.now += 3 * DAY
    world.restart()
    world.step()
    assert world.states("skips") == [("missed", "no scheduler ran until 2026-11-27 02:00")]
    assert world.states("catches-up") == [("running", "late: no scheduler ran until 2026-11-27 02:00")]


def test_what_waited_when_the_scheduler_ended_is_not_run_days_later(world: World) -> None:
    world.add("first")
    world.add("second")
    world.step(after=HOUR)
    world.now += 2 * HOUR
    world.restart()
    world.step()
    assert world.states("second") == [("missed", "no scheduler ran when it was its turn")]


def test_a_schedule_that_is_removed_stops_what_it_runs_and_what_waits(world: World) -> None:
    world.add("first")
    world.add("second")
    world.step(after=HOUR)
    world.store.schedules.remove("second")
    world.store.schedules.remove("first")
    world.step()
    assert world.started[0].stopped
    assert world.states("first") == [("failed", "stopped: the schedule was removed")]
    assert world.states("second") == [("skipped", "the schedule was removed")]


def test_a_paused_schedule_waits_and_goes_on_with_its_next_tick(world: World) -> None:
    world.add()
    world.store.schedules.pause("nightly")
    world.step(after=2 * DAY)
    assert world.states() == []
    assert schedule.resume(world.store, "nightly", world.now) == START + HOUR + 2 * DAY
    world.step()
    assert world.states() == []
    world.step(after=HOUR)
    assert world.states() == [("running", None)]


def test_a_run_by_hand_needs_no_tick_and_waits_only_once(world: World) -> None:
    world.add()
    world.store.schedules.pause("nightly")
    schedule.run_now(world.store, "nightly", world.now)
    with pytest.raises(NotAllowedError, match="waits already"):
        schedule.run_now(world.store, "nightly", world.now)
    world.step()
    assert world.states() == [("running", "by hand")]
    world.end(0)
    world.step()
    assert world.states() == [("succeeded", "by hand")]
    assert world.store.schedules.find("nightly").next_tick == START + HOUR


def test_a_command_that_cannot_be_started_is_a_failure(world: World) -> None:
    schedule.add(world.store, "gone", NIGHTLY, cron="0 3 * * *", timezone="UTC", cwd=Path("/no/such"), now=START)
    world.scheduler = Scheduler(world.store, clock=world.clock, say=world.said.append)
    world.step(after=HOUR)
    [(state, reason)] = world.states()
    assert state == "failed"
    assert "could not be started" in str(reason)
    assert "/no/such" in str(reason)


def test_the_scheduler_that_is_stopped_stops_its_command(world: World) -> None:
    world.add(webhook_url="https://hooks.example.com/T0KEN")
    world.step(after=HOUR)
    world.scheduler.stop()
    assert world.started[0].stopped
    assert world.states() == [("failed", "interrupted: the scheduler was stopped")]
    assert world.posted == [], "who stops it knows it"


def test_every_change_is_an_event(world: World) -> None:
    world.add(webhook_url="https://hooks.example.com/T0KEN")
    world.step(after=HOUR)
    world.end(0)
    world.step()
    world.store.schedules.pause("nightly")
    schedule.resume(world.store, "nightly", world.now)
    world.store.schedules.remove("nightly")
    kinds = [event.kind.removeprefix("schedule.") for event in world.store.events()]
    assert kinds == ["added", "queued", "running", "process", "succeeded", "paused", "resumed", "removed"]


def test_bad_input_is_refused_before_anything_is_kept(world: World) -> None:
    for name, fields in (
        ("../x", {}),
        ("scheduler.log", {}),
        ("ok", {"webhook_url": "hooks.example.com"}),
        ("ok", {"cron": "0 3 * *"}),
    ):
        with pytest.raises(InputError):
            world.add(name, **fields)
    assert world.store.schedules.all() == []
    world.add("ok")
    with pytest.raises(InputError, match="already"):
        world.add("ok")
    with pytest.raises(InputError, match="did you mean 'ok'"):
        world.store.schedules.find("okk")


def _serve(world: World, rounds: int, **fields: Any) -> None:
    """The loop, for so many rounds and an hour each."""

    def stop() -> bool:
        nonlocal rounds
        rounds -= 1
        return rounds < 0

    def wait(_: float) -> None:
        world.now += HOUR

    schedule.serve(world.store, stop=stop, say=world.said.append, clock=world.clock, wait=wait, **fields)


def test_there_is_one_scheduler_for_a_store(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "_LOCK_S", 0.05)
    assert schedule.running(world.store.home) is None
    lock = schedule._lock(world.store.home)
    with lock, pytest.raises(NotAllowedError, match="runs already"):
        _serve(world, 1)
    seen: list[int | None] = []
    schedule.serve(
        world.store,
        stop=lambda: bool(seen),
        say=world.said.append,
        wait=lambda _: seen.append(schedule.running(world.store.home)),
    )
    assert seen == [os.getpid()]
    assert schedule.running(world.store.home) is None


def test_the_loop_outlives_a_round_that_fails(world: World) -> None:
    world.add(cron="0 * * * *")
    (world.store.home / "schedules").mkdir(exist_ok=True)
    (world.store.home / "schedules" / "nightly").write_text("in the way of the folder of logs")
    real, calls = world.store.schedules.all, iter([0, 1])  # the second: recovering went well

    def failing_once() -> Any:
        if next(calls, None):
            raise InfrastructureError("the disk is full")
        return real()

    world.store.schedules.all = failing_once  # type: ignore[method-assign]
    _serve(world, 4)
    assert "the disk is full" in world.said[0]
    assert "Traceback" in world.said[0]
    assert any("could not be started" in str(reason) for _, reason in world.states())


def test_a_real_command_runs_and_logs(tmp_path: Path) -> None:
    assert scheduler.start_orch(["schedule", "--help"], tmp_path / "a.log", tmp_path).wait() == 0
    assert "run-now" in (tmp_path / "a.log").read_text()


def test_a_failed_start_of_the_detached_scheduler_shows_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(InfrastructureError, match="did not start"):
        schedule.start_detached(tmp_path)
    assert not schedule.stop(tmp_path)


def test_a_stale_description_is_nobody(tmp_path: Path) -> None:
    """The scheduler was killed, and its pid is somebody else's by now."""
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    folder = tmp_path / "schedules"
    folder.mkdir()
    (folder / "scheduler.json").write_text(json.dumps({"pid": other.pid, "started": "long ago"}))
    try:
        assert schedule.running(tmp_path) is None
        assert not schedule.stop(tmp_path)
        with schedule._lock(tmp_path):
            assert not schedule.stop(tmp_path)
        assert other.poll() is None
    finally:
        other.communicate()
