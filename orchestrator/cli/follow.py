"""Following a run from the store: a live view on a terminal, one line an event elsewhere. Ctrl-C only detaches."""

import sys
import time
from collections.abc import Iterator

from rich.columns import Columns
from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from orchestrator.cli import show
from orchestrator.controller import process
from orchestrator.errors import from_record
from orchestrator.store.records import ENDED, Event, StageRun
from orchestrator.store.store import Store

_POLL_S = 0.2
_LOOK_S = 5.0
"""Between two looks whether there is a controller."""
_PROGRESS_EVERY_S = 5.0
_INTERRUPTED = 130
_MARKS = {"pending": "·", "succeeded": "✓", "reused": "↺", "failed": "✗", "cancelled": "■"}
_STYLES = {"succeeded": "green", "reused": "cyan", "failed": "red", "cancelled": "yellow", "pending": "dim"}


def follow(store: Store, run: str) -> int:
    """Show the run until it ends; its exit code, or 130 when the user detaches or cancels it."""
    console = Console()
    try:
        if console.is_terminal:
            _live(store, run, console)
        else:
            _lines(store, run)
    except KeyboardInterrupt:
        print(f"\ndetached; the run goes on. `orch logs -f {run}` follows it again, `orch cancel {run}` stops it")
        return _INTERRUPTED
    show.ended(store, run)
    error = store.run(run).error
    if error:
        failure = from_record(error)
        print(f"error: {failure}", file=sys.stderr)
        return failure.exit_code
    return 0 if store.run(run).state == "succeeded" else _INTERRUPTED


def line(event: Event) -> str:
    """One event as one line of text."""
    clock = time.strftime("%H:%M:%S", time.localtime(event.time))
    stage = f"{event.stage}: " if event.stage else ""
    return f"{clock} {stage}{_words(event)}"


def _words(event: Event) -> str:
    data = event.data
    if event.kind == "log":
        return str(data.get("message", ""))
    if event.kind == "progress":
        return _progress(data)
    if event.kind == "gate":
        mark = "passed" if data["passed"] else "FAILED"
        return f"gate {data['gate']['on']} = {data['value']:.4g} {mark}"
    if event.kind == "level":
        ttft = f"TTFT p95 {1000 * data['ttft_p95']:.1f} ms, " if "ttft_p95" in data else ""
        what = f"{data['target']}, {data['load']}" if "load" in data else f"{data['concurrency']} streams"
        return f"{what}: {ttft}{data['tokens_per_s']:,.0f} tokens/s, {data['errors']} errors"
    if event.kind == "pid":
        return f"worker process {data['pid']}"
    if event.kind == "checkpoint":
        return f"checkpoint of step {data['step']} saved"
    about = f" {event.service}@{data['release']}" if event.service else ""
    words = event.kind.split(".", 1)[-1].replace("_", " ") + about
    return f"{words}: {data['message']}" if data.get("message") else words


def _progress(data: dict[str, object]) -> str:
    units = {"loss": "{:.3f}", "tokens_per_s": "{:,.0f} tokens/s", "eta_s": "{:.0f} s left"}
    parts = [f"{data['step']}/{data['steps']}"] if {"step", "steps"} <= data.keys() else []
    for name, form in units.items():
        if isinstance(data.get(name), int | float):
            parts.append(("loss " if name == "loss" else "") + form.format(data[name]))
    known = {"step", "steps", *units}
    parts += [f"{name} {value}" for name, value in data.items() if name not in known and isinstance(value, int | str)]
    return "  ".join(parts)


def _tail(store: Store, run: str) -> Iterator[list[Event]]:
    """New events, again and again until the run has ended and all were seen."""
    seen, looked, address = 0, time.monotonic(), store.run(run).plan["cluster"]["address"]
    while True:
        ended = store.run_state(run) in ENDED
        new = store.events(run=run, after=seen)
        if new:
            seen = new[-1].id
        yield new
        if ended:
            return
        if not new and time.monotonic() - looked > _LOOK_S:
            looked = time.monotonic()
            process.ensure(store, address)  # it may have been killed; who follows a run needs one
        time.sleep(_POLL_S)


def _waits(store: Store, run: str) -> str | None:
    """What the run waits for, once that is known."""
    if store.run_state(run) != "queued":
        return None
    found = store.run(run)
    return show.waits(found) if found.wait else None


def _lines(store: Store, run: str) -> None:
    last_progress, told = 0.0, ""
    for events in _tail(store, run):
        waits = _waits(store, run)
        if waits and waits != told:
            told = waits
            print(f"{time.strftime('%H:%M:%S')} {waits}", flush=True)
        for event in events:
            if event.kind == "progress":
                if event.time - last_progress < _PROGRESS_EVERY_S:
                    continue
                last_progress = event.time
            print(line(event), flush=True)


def _live(store: Store, run: str, console: Console) -> None:
    notes: dict[str, Event] = {}
    with Live(console=console, refresh_per_second=8) as live:
        for events in _tail(store, run):
            for event in events:
                if event.stage and event.kind in ("progress", "log", "gate"):
                    notes[event.stage] = event
            waits = _waits(store, run)
            live.update(Text(f"  {waits}") if waits else _view(store.stage_runs(run), notes))


def _view(stages: list[StageRun], notes: dict[str, Event]) -> Table:
    """One row a stage: mark, name, time, and its numbers or, while it runs, a bar and its newest event."""
    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_column(width=2)
    table.add_column(width=10)
    table.add_column(width=8, justify="right")
    table.add_column(no_wrap=True, overflow="ellipsis")
    for row in stages:
        mark = Spinner("dots") if row.state == "running" else Text(_MARKS[row.state], style=_STYLES[row.state])
        name = Text(row.stage, style="bold" if row.state == "running" else _STYLES[row.state])
        table.add_row(mark, name, show.seconds(row), _note(row, notes.get(row.stage)))
    return table


def _note(row: StageRun, event: Event | None) -> RenderableType:
    if row.state in ("succeeded", "reused"):
        return Text(show.highlights(row), style="dim")
    if event is None or row.state == "pending":
        return ""
    if event.kind != "progress" or row.state != "running":
        return Text(_words(event), style="dim")
    bar = ProgressBar(total=event.data.get("steps", 1), completed=event.data.get("step", 0), width=24)
    return Columns([bar, Text(_words(event))])
