"""Commands about schedules: schedule add, list, pause, resume, rm, run-now, history, serve."""

import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from orchestrator.cli.app import app, home

schedule = typer.Typer(
    help="Run benchmarks and recipes by the clock, and be told when they fail or get worse.", no_args_is_help=True
)
app.add_typer(schedule, name="schedule")


Target = Annotated[
    str, typer.Argument(metavar="TARGET", help="A recipe's YAML file; to benchmark, also a server's URL.")
]
Extra = Annotated[
    list[str] | None, typer.Argument(metavar="[-- ARGUMENT...]", help="More arguments of the command, after --.")
]
Cron = Annotated[str, typer.Option("--cron", help='When: minute hour day month weekday, such as "0 3 * * *".')]
Name = Annotated[str | None, typer.Option("--name", help="Name of the schedule; default: that of the recipe or host.")]
With = Annotated[
    Literal["bench", "run"],
    typer.Option("--command", help="`orch bench run`, or `orch run`, which repeats only what is given to --force."),
]
Timezone = Annotated[
    str | None, typer.Option("--timezone", help="Of --cron, such as Europe/Berlin; default: this machine's.")
]
Webhook = Annotated[str | None, typer.Option("--webhook", help="URL that is told of failures and regressions.")]
OnMissed = Annotated[
    Literal["skip", "run-once"], typer.Option("--missed", help="When ticks passed while no scheduler ran.")
]
OnOverlap = Annotated[Literal["skip", "queue"], typer.Option("--overlap", help="At a tick while the one before runs.")]
ScheduleName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the schedule.")]
OptionalName = Annotated[str | None, typer.Argument(metavar="[NAME]", help="Name of a schedule; default: all.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option("-n", "--limit", min=1, help="How many, newest first.")]
Detach = Annotated[bool, typer.Option("-d", "--detach", help="Start it in the background and return.")]


@schedule.command()
def add(
    target: Target,
    cron: Cron,
    extra: Extra = None,
    name: Name = None,
    command: With = "bench",
    timezone: Timezone = None,
    webhook: Webhook = None,
    missed: OnMissed = "skip",
    overlap: OnOverlap = "skip",
) -> None:
    """Run a benchmark or a recipe by the clock, in this folder. Starts the scheduler where none runs."""
    from orchestrator.cli import schedule_show
    from orchestrator.controller import schedule, ticks
    from orchestrator.store.store import Store

    store = Store(home())
    arguments = schedule.arguments(command, target, extra or [], store.home)
    _check_parses(arguments)
    made = schedule.add(
        store,
        name or schedule.name_of(target),
        arguments,
        cron=cron,
        timezone=timezone or ticks.local_zone(),
        cwd=Path.cwd(),
        now=time.time(),
        webhook_url=webhook,
        missed="run_once" if missed == "run-once" else "skip",
        overlap=overlap,
    )
    schedule_show.added(made)
    _ensure_scheduler()


@schedule.command("list")
def list_(as_json: AsJson = False) -> None:
    """Show the schedules: when each is due next, how it ended last, and whether a scheduler runs."""
    from orchestrator.cli import schedule_show
    from orchestrator.controller import schedule
    from orchestrator.store.store import Store

    store = Store(home())
    schedule_show.schedules(store, schedule.running(store.home), as_json=as_json)


@schedule.command()
def pause(name: ScheduleName) -> None:
    """Start nothing of it until it is resumed; what runs goes on."""
    from orchestrator.store.store import Store

    Store(home()).schedules.pause(name)
    print(f"{name} is paused; `orch schedule resume {name}` goes on")


@schedule.command()
def resume(name: ScheduleName) -> None:
    """Go on with a paused schedule at its next tick."""
    from orchestrator.cli import schedule_show
    from orchestrator.controller import schedule
    from orchestrator.store.store import Store

    store = Store(home())
    schedule.resume(store, name, time.time())
    schedule_show.added(store.schedules.find(name))
    _ensure_scheduler()


@schedule.command()
def rm(name: ScheduleName) -> None:
    """Remove a schedule, and stop what it runs; its history and its logs stay."""
    from orchestrator.store.store import Store

    Store(home()).schedules.remove(name)
    print(f"{name} is removed")


@schedule.command("run-now")
def run_now(name: ScheduleName) -> None:
    """Run it once, now or after what runs; a paused one too."""
    from orchestrator.controller import schedule
    from orchestrator.store.store import Store

    schedule.run_now(Store(home()), name, time.time())
    print(f"{name} is queued; `orch schedule history {name}` shows how it goes")
    _ensure_scheduler()


@schedule.command()
def history(name: OptionalName = None, limit: Limit = 20, as_json: AsJson = False) -> None:
    """Show what became of the ticks: when each ran, for how long, how it ended, and its log."""
    from orchestrator.cli import schedule_show
    from orchestrator.store.store import Store

    schedule_show.history(Store(home()), name, limit, as_json=as_json)


@schedule.command()
def serve(detach: Detach = False) -> None:
    """Be the scheduler, until Ctrl-C or `orch down`; what it runs ends with it. For a service manager, or with -d."""
    import signal

    from orchestrator.controller import schedule
    from orchestrator.store.store import Store

    if detach:
        print(f"the scheduler is process {schedule.start_detached(home())}; `orch down` stops it")
        return
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: stopped.append(received))
    _say(f"scheduler of {home()}")
    schedule.serve(Store(home()), stop=lambda: bool(stopped), say=_say)
    _say("the scheduler has ended")


def _check_parses(arguments: list[str]) -> None:
    """A misspelt option is a usage error now, not tonight."""
    found: Any = typer.main.get_command(app)
    words = list(arguments)
    while hasattr(found, "commands"):
        found = found.commands[words.pop(0)]
    found.make_context(" ".join(["orch", *arguments[: -len(words)]]), words)


def _say(line: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}", flush=True)


def _ensure_scheduler() -> None:
    from orchestrator.controller import schedule

    if schedule.running(home()) is None:
        pid = schedule.start_detached(home())
        print(f"the scheduler runs in the background now (process {pid}); after a reboot: `orch schedule serve -d`")
