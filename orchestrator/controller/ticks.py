"""When a schedule is due: cron expressions in a time zone, and what becomes of ticks that are late or overlap; pure.

A cron expression has five fields (minute hour day month weekday) or is @hourly, @daily, @weekly, @monthly or @yearly.
Where clocks change it is read as Vixie cron reads it: in spring a time that does not exist comes at the end of the gap;
in autumn a time that comes twice counts once, unless the hour is `*` or `*/n`, which goes by hours that pass.
"""

import difflib
import os
import zoneinfo
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.store.records import Schedule

GRACE_S = 300.0
"""A tick that is found later than this was missed; a restart of the scheduler takes less."""
_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
_FIELDS = {
    "minute": "0-59",
    "hour": "0-23",
    "day": "1-31",
    "month": "1-12 or jan-dec",
    "weekday": "0-7 or sun-sat",
}
_EXAMPLES = (
    'write minute hour day month weekday, such as "0 3 * * *" (03:00 each day) or "30 9-17 * * mon-fri"; or @daily'
)


def next_tick(cron: str, timezone: str, after: float) -> float:
    """The first tick later than `after`; Unix time.

    Raises InputError for an expression or a time zone that is none, and for a time that never comes (30 February).
    """
    from croniter import CroniterBadDateError, croniter  # 0.1 s

    zone, fields = _zone(timezone), _fields(cron)
    found = croniter(" ".join(fields), datetime.fromtimestamp(after, zone))
    try:
        tick: datetime = found.get_next(datetime)
        while tick.fold and not fields[1].startswith("*"):
            tick = found.get_next(datetime)
    except CroniterBadDateError as error:
        raise InputError(f"the time of {cron!r} never comes", next_step=_EXAMPLES) from error
    return tick.timestamp()


Tick = tuple[float, str, str | None]
"""Its time, what becomes of it, and why."""


@dataclass(frozen=True)
class Due:
    """What becomes of the ticks of a schedule that have passed."""

    upcoming: float
    """The next one."""
    ticks: list[Tick]
    """`queued` to run it, `skipped`, or `missed`, which stands for all that were."""


def due(schedule: Schedule, now: float, *, running: bool, queued: bool) -> Due | None:
    """None while no tick has passed. `running` and `queued`: an earlier tick of this schedule has not ended, or waits.

    However many ticks were missed, they are one row, and at most one of them runs: the newest, if it is not late yet,
    runs as any other; else the policy says whether one runs late.
    """
    if schedule.paused or now < schedule.next_tick:
        return None
    newest, ticks = _newest(schedule, now), list[Tick]()
    until = f"{datetime.fromtimestamp(now, _zone(schedule.timezone)):%Y-%m-%d %H:%M}"
    if newest is None and schedule.missed == "run_once":
        ticks = [_run(schedule, schedule.next_tick, f"late: no scheduler ran until {until}", running, queued)]
    elif newest is None or newest > schedule.next_tick:
        ticks = [(schedule.next_tick, "missed", f"no scheduler ran until {until}")]
    if newest is not None:
        ticks.append(_run(schedule, newest, None, running, queued))
    return Due(next_tick(schedule.cron, schedule.timezone, now), ticks)


def too_late(schedule: Schedule, tick: float, now: float) -> bool:
    """Whether a tick that was queued when the scheduler ended is not to be run any more."""
    return schedule.missed == "skip" and now - tick > GRACE_S


def local_zone() -> str:
    """The machine's time zone by name; UTC where it has none."""
    linked = str(Path("/etc/localtime").resolve()).partition("zoneinfo/")[2]
    named = (_known_zone(name) for name in (os.environ.get("TZ", "").removeprefix(":"), linked))
    return next((zone.key for zone in named if zone), "UTC")


def _newest(schedule: Schedule, now: float) -> float | None:
    """The newest tick that has passed, if it is not too late for it."""
    newest = schedule.next_tick if schedule.next_tick >= now - GRACE_S else None
    tick = next_tick(schedule.cron, schedule.timezone, max(schedule.next_tick, now - GRACE_S))
    while tick <= now:
        newest, tick = tick, next_tick(schedule.cron, schedule.timezone, tick)
    return newest


def _run(schedule: Schedule, tick: float, reason: str | None, running: bool, queued: bool) -> Tick:
    if queued:
        return tick, "skipped", "an earlier tick still waits"
    if running and schedule.overlap == "skip":
        return tick, "skipped", "the tick before had not ended"
    return tick, "queued", reason


def _fields(cron: str) -> list[str]:
    """The five fields. Raises InputError that names the one that is wrong."""
    from croniter import CroniterError, croniter

    fields = _ALIASES.get(cron.strip().lower(), cron).lower().split()
    if len(fields) != len(_FIELDS):
        raise InputError(f"{cron!r} is not a cron expression: it has {len(fields)} fields, not 5", next_step=_EXAMPLES)
    for position, (name, allowed) in enumerate(_FIELDS.items()):
        alone = ["*"] * len(fields)
        alone[position] = fields[position]
        try:
            if fields[position][0] in "hr":  # croniter's extension for hashed and random times
                raise CroniterError
            croniter.expand(" ".join(alone))
        except CroniterError as error:
            message = f"{cron!r} is not a cron expression: the {name} {fields[position]!r} is not within {allowed}"
            raise InputError(message, next_step=_EXAMPLES) from error
    return fields


def _zone(name: str) -> zoneinfo.ZoneInfo:
    zone = _known_zone(name)
    if zone is None:
        close = difflib.get_close_matches(name, zoneinfo.available_timezones(), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(
            f"no time zone {name!r}{hint}", next_step="give one such as Europe/Berlin, America/New_York or UTC"
        )
    return zone


def _known_zone(name: str) -> zoneinfo.ZoneInfo | None:
    try:
        return zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # OSError: a folder of zones, such as "Europe"
        return None
