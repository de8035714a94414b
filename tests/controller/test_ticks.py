"""When schedules are due: time zones, days on which clocks change, bad expressions, late and overlapping ticks."""

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.controller.ticks import GRACE_S, due, local_zone, next_tick, too_late
from orchestrator.errors import InputError
from orchestrator.store.records import Schedule

BERLIN = ZoneInfo("Europe/Berlin")
HOUR, DAY = 3600.0, 86400.0


def _ticks(cron: str, after: str, count: int, zone: ZoneInfo = BERLIN) -> list[str]:
    """The next ticks as local times with their offset."""
    moment, found = datetime.fromisoformat(after).replace(tzinfo=zone).timestamp(), []
    for _ in range(count):
        moment = next_tick(cron, zone.key, moment)
        found.append(datetime.fromtimestamp(moment, zone).isoformat(timespec="minutes"))
    return found


def test_a_tick_is_a_local_time_in_winter_and_in_summer() -> None:
    assert _ticks("0 3 * * *", "2026-01-10T12:00", 1) == ["2026-01-11T03:00+01:00"]
    assert _ticks("0 3 * * *", "2026-07-10T12:00", 1) == ["2026-07-11T03:00+02:00"]
    assert _ticks("30 9-10 * * mon-fri", "2026-11-20T09:45", 3) == [
        "2026-11-20T10:30+01:00",
        "2026-11-23T09:30+01:00",
        "2026-11-23T10:30+01:00",
    ]


def test_a_tick_is_later_than_the_moment_that_it_is_asked_for() -> None:
    assert _ticks("0 3 * * *", "2026-01-10T03:00", 1) == ["2026-01-11T03:00+01:00"]


def test_in_spring_a_time_that_does_not_exist_comes_at_the_end_of_the_gap() -> None:
    assert _ticks("30 2 * * *", "2026-03-28T12:00", 2) == ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]
    assert _ticks("0 * * * *", "2026-03-29T00:30", 3) == [
        "2026-03-29T01:00+01:00",
        "2026-03-29T03:00+02:00",
        "2026-03-29T04:00+02:00",
    ]


def test_in_autumn_a_time_that_comes_twice_counts_once_and_every_hour_is_every_hour() -> None:
    assert _ticks("30 2 * * *", "2026-10-24T12:00", 2) == ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]
    assert _ticks("0 * * * *", "2026-10-25T01:30", 3) == [
        "2026-10-25T02:00+02:00",
        "2026-10-25T02:00+01:00",
        "2026-10-25T03:00+01:00",
    ]


def test_in_autumn_the_second_passing_of_the_hour_is_skipped_from_inside_it_too() -> None:
    inside = datetime(2026, 10, 25, 2, 45, tzinfo=BERLIN).timestamp()
    assert next_tick("30 2 * * *", "Europe/Berlin", inside) == inside + DAY + HOUR - 15 * 60


def test_a_day_is_as_long_as_its_clock_says() -> None:
    spring = datetime(2026, 3, 28, 12, tzinfo=BERLIN).timestamp()
    assert next_tick("0 12 * * *", "Europe/Berlin", spring) - spring == 23 * HOUR
    autumn = datetime(2026, 10, 24, 12, tzinfo=BERLIN).timestamp()
    assert next_tick("0 12 * * *", "Europe/Berlin", autumn) - autumn == 25 * HOUR


@given(
    after=st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)),
    zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]),
)
def test_a_daily_tick_comes_once_for_every_local_day(after: datetime, zone: str) -> None:
    local = ZoneInfo(zone)
    first = next_tick("30 2 * * *", zone, after.replace(tzinfo=local).timestamp())
    second = next_tick("30 2 * * *", zone, first)
    days = [datetime.fromtimestamp(tick, local).date() for tick in (first, second)]
    assert days[1] - days[0] == timedelta(days=1)


@pytest.mark.parametrize(
    ("cron", "problem"),
    [
        ("0 3 * *", "it has 4 fields, not 5"),
        ("0 0 3 * * *", "it has 6 fields, not 5"),
        ("", "it has 0 fields, not 5"),
        ("61 * * * *", "the minute '61' is not within 0-59"),
        ("0 24 * * *", "the hour '24' is not within 0-23"),
        ("0 3 0 * *", "the day '0' is not within 1-31"),
        ("0 3 * 13 *", "the month '13' is not within 1-12"),
        ("0 3 * * monday", "the weekday 'monday' is not within 0-7 or sun-sat"),
        ("*/0 * * * *", "the minute '*/0' is not"),
        ("R 3 * * *", "the minute 'r' is not"),
        ("@reboot", "it has 1 fields, not 5"),
        ("0 3 30 2 *", "never comes"),
    ],
)
def test_a_bad_expression_says_what_is_wrong_and_gives_an_example(cron: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        next_tick(cron, "UTC", 0)
    assert problem in caught.value.message
    assert '"0 3 * * *"' in str(caught.value.next_step)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("Europe/Berln", "did you mean 'Europe/Berlin'"), ("Europe", "no time zone 'Europe'"), ("", "''")],
)
def test_a_bad_time_zone_gives_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        next_tick("@daily", name, 0)


def test_the_machines_zone_is_one_that_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert next_tick("@daily", local_zone(), 0) > 0
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    assert local_zone() == "Asia/Kathmandu"


TICK = datetime(2026, 11, 24, 3, 0, tzinfo=ZoneInfo("UTC")).timestamp()


def _schedule(**fields: Any) -> Schedule:
    given = {"cron": "0 3 * * *", "timezone": "UTC", "next_tick": TICK, "command": ["bench", "run", "x"], **fields}
    return Schedule(name="nightly", cwd="/", created=0, **given)


def test_nothing_is_due_before_its_time_or_while_it_is_paused() -> None:
    assert due(_schedule(), TICK - 0.1, running=False, queued=False) is None
    assert due(_schedule(paused=True), TICK + 1, running=False, queued=False) is None


@pytest.mark.parametrize("late", [0.0, 1.0, GRACE_S])
def test_a_tick_on_time_is_run(late: float) -> None:
    found = due(_schedule(), TICK + late, running=False, queued=False)
    assert found is not None
    assert (found.upcoming, found.ticks) == (TICK + DAY, [(TICK, "queued", None)])


def test_missed_ticks_are_one_row_whatever_their_number() -> None:
    found = due(_schedule(), TICK + 10 * DAY + HOUR, running=False, queued=False)
    assert found is not None
    assert found.upcoming == TICK + 11 * DAY
    assert found.ticks == [(TICK, "missed", "no scheduler ran until 2026-12-04 04:00")]


def test_missed_ticks_run_once_where_the_policy_says_so() -> None:
    found = due(_schedule(missed="run_once"), TICK + 10 * DAY + HOUR, running=False, queued=False)
    assert found is not None
    assert found.ticks == [(TICK, "queued", "late: no scheduler ran until 2026-12-04 04:00")]


@pytest.mark.parametrize("missed", ["skip", "run_once"])
def test_after_missed_ticks_the_newest_runs_if_it_is_on_time(missed: str) -> None:
    found = due(_schedule(missed=missed), TICK + 2 * DAY + 60, running=False, queued=False)
    assert found is not None
    assert found.ticks == [
        (TICK, "missed", "no scheduler ran until 2026-11-26 03:01"),
        (TICK + 2 * DAY, "queued", None),
    ]


def test_every_minute_after_a_short_break_only_the_newest_runs() -> None:
    found = due(_schedule(cron="* * * * *"), TICK + 200, running=False, queued=False)
    assert found is not None
    assert [(tick, state) for tick, state, _ in found.ticks] == [(TICK, "missed"), (TICK + 180, "queued")]
    assert found.upcoming == TICK + 240


@pytest.mark.parametrize(
    ("overlap", "running", "queued", "state"),
    [
        ("skip", False, False, "queued"),
        ("skip", True, False, "skipped"),
        ("skip", False, True, "skipped"),
        ("queue", True, False, "queued"),
        ("queue", True, True, "skipped"),
        ("queue", False, True, "skipped"),
    ],
)
def test_overlapping_ticks_are_skipped_or_one_of_them_waits(
    overlap: str, running: bool, queued: bool, state: str
) -> None:
    found = due(_schedule(overlap=overlap), TICK, running=running, queued=queued)
    assert found is not None
    assert found.ticks[0][1] == state


def test_what_waited_while_no_scheduler_ran_is_too_late_unless_it_may_run_late() -> None:
    assert too_late(_schedule(), TICK, TICK + GRACE_S + 1)
    assert not too_late(_schedule(), TICK, TICK + GRACE_S)
    assert not too_late(_schedule(missed="run_once"), TICK, TICK + DAY)
