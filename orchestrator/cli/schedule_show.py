"""What the commands about schedules print."""

import json
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from rich.markup import escape
from rich.table import Table

from orchestrator import webhook
from orchestrator.cli.show import console, duration, when
from orchestrator.store.records import Schedule, ScheduleRun
from orchestrator.store.store import Store

_STYLES = {"succeeded": "green", "failed": "red", "running": "bold", "missed": "yellow", "skipped": "yellow"}


def added(made: Schedule) -> None:
    """A schedule that was added or resumed."""
    console().print(
        f"[bold]{made.name}[/]: `{escape(_command(made))}` next on {_local(made, made.next_tick)} ({made.timezone})"
    )


def schedules(store: Store, scheduler: int | None, *, as_json: bool) -> None:
    """All schedules, and the scheduler's process."""
    found, last = store.schedules.all(), store.schedules.last_runs()
    if as_json:
        listed = [_plain(schedule, last.get(schedule.name)) for schedule in found]
        print(json.dumps({"scheduler": scheduler, "schedules": listed}, indent=2))
        return
    out = console()
    if not found:
        out.print('nothing is scheduled; `orch schedule add RECIPE --cron "0 3 * * *"` runs a benchmark each night')
        return
    for schedule in found:
        for line in _block(schedule, last.get(schedule.name)):
            out.print(line, soft_wrap=True)
    if scheduler is None:
        out.print("[red]no scheduler runs[/]; `orch schedule serve -d` starts it")
    else:
        out.print(f"the scheduler is process {scheduler}; its log: {store.home}/schedules/scheduler.log")


def history(store: Store, name: str | None, limit: int, *, as_json: bool) -> None:
    """What became of the ticks; InputError for a name that neither is a schedule nor was one."""
    runs = store.schedules.history(name, limit)
    if name is not None and not runs:
        store.schedules.find(name)
    if as_json:
        print(json.dumps([run.model_dump() for run in runs], indent=2))
        return
    if not runs:
        console().print("nothing was due yet")
        return
    table = Table("schedule", "tick", "state", "took", "", box=None, padding=(0, 2, 0, 0))
    for run in runs:
        table.add_row(run.schedule, when(run.tick), _state(run), _took(run), escape(run.reason or ""))
    console().print(table)
    newest = next((run for run in runs if run.log), None)
    if newest:
        console().print(f"what {newest.schedule} printed last: {newest.log}", soft_wrap=True)


def _plain(schedule: Schedule, last: ScheduleRun | None) -> dict[str, Any]:
    url = schedule.webhook.get_secret_value() if schedule.webhook else None
    shown = {"webhook": webhook.redacted(url) if url else None, "last": last.model_dump() if last else None}
    return schedule.model_dump(mode="json") | shown


def _command(schedule: Schedule) -> str:
    return " ".join(["orch", *schedule.command])


def _block(schedule: Schedule, last: ScheduleRun | None) -> Iterator[str]:
    yield f"[bold]{schedule.name}[/]  {escape(schedule.cron)}  {schedule.timezone}"
    yield f"  next   {'[yellow]paused[/]' if schedule.paused else _local(schedule, schedule.next_tick)}"
    yield f"  last   {_last(last) if last else 'not yet'}"
    yield f"  runs   {escape(_command(schedule))}"
    if schedule.webhook:
        yield f"  tells  {webhook.redacted(schedule.webhook.get_secret_value())}"


def _last(run: ScheduleRun) -> str:
    reason = f", {escape(run.reason)}" if run.reason else ""
    return f"{when(run.tick)} {_state(run)}{reason}"


def _state(run: ScheduleRun) -> str:
    style = _STYLES.get(run.state)
    return f"[{style}]{run.state}[/]" if style else run.state


def _took(run: ScheduleRun) -> str:
    return "" if run.started is None else duration((run.ended or time.time()) - run.started)


def _local(schedule: Schedule, moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, ZoneInfo(schedule.timezone)):%a %Y-%m-%d %H:%M}"
