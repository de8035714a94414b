"""Runs what `orch bench run` was asked for: servers right here, a recipe through the machinery of runs."""

import secrets
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from orchestrator.bench import sweep
from orchestrator.bench.result import Result
from orchestrator.bench.run import run_sweep
from orchestrator.bench.sweep import CellPlan, SweepPlan
from orchestrator.bench.targets import Opener, Ready, server
from orchestrator.cli import bench_after, bench_options, bench_show
from orchestrator.cli.bench_after import After
from orchestrator.cli.bench_live import View
from orchestrator.cli.bench_options import Given
from orchestrator.errors import InputError
from orchestrator.loadgen.workload.prompts import read_prompts
from orchestrator.loadgen.workload.spec import Workload
from orchestrator.loadgen.workload.trace import read_trace

INTERRUPTED = 130
"""Exit code of what Ctrl-C has ended."""


def is_url(target: str) -> bool:
    """Whether it names a server rather than a recipe."""
    return target.startswith(("http://", "https://")) or not (
        Path(target).exists() or target.endswith((".yaml", ".yml"))
    )


def run(targets: Sequence[str], given: Given, after: After, home: Path, resume: str | None = None) -> int:
    """Measure, and do with the result what was asked; the exit code. Raises what the user is to read.

    `resume` is the id of a benchmark that was cut off, whose finished cells are kept, or `latest`.
    """
    recipes = [target for target in targets if not is_url(target)]
    if recipes:
        return _recipe(targets, given, after, home, resume)
    against = bench_after.before(after, home, [given.name or next(iter(_named(targets)))])
    plan = bench_options.checked(SweepPlan, bench_options.plan(given))
    _read_files(plan.asked)
    with ExitStack() as stack:
        # each is asked what it is before anything is measured: a wrong URL or model ends it all
        ready = {name: stack.enter_context(_server(name, url, given)) for name, url in _named(targets).items()}
        openers: dict[str, Opener] = {name: _opener(found) for name, found in ready.items()}
        console = bench_show.console(stderr=after.as_json)
        result, stopped = measured(plan, openers, given.name or next(iter(openers)), home, console, resume=resume)
    bench_after.finish(result, home, after, against, stopped=stopped)
    return INTERRUPTED if stopped else 0


def _recipe(targets: Sequence[str], given: Given, after: After, home: Path, resume: str | None) -> int:
    from orchestrator.cli import bench_recipe

    if len(targets) > 1:
        raise InputError("a recipe is run alone", next_step=f"`orch bench run {targets[0]}`")
    if given.chosen:
        raise InputError(
            f"a recipe says itself what is measured, and {', '.join(given.chosen)} would too",
            next_step=f"change the `benchmark` section of {targets[0]}, or give a URL",
        )
    return bench_recipe.run(Path(targets[0]), after, home, partial(measured, resume=resume), resume)


def measured(
    plan: SweepPlan,
    openers: Mapping[str, Opener],
    name: str,
    home: Path,
    console: Console,
    facts: Mapping[str, Any] | None = None,
    resume: str | None = None,
) -> tuple[Result, bool]:
    """The result of a sweep, in a folder of `home`, new unless it goes on, and whether it was ended early."""
    directory = home / "benchmarks" / _new_id() if resume is None else _begun(home, resume, plan, list(openers))
    targets = [{"name": target} for target in openers]
    slo = plan.slo.model_dump(mode="json") if plan.slo else None
    with View(console, targets, slo, time.monotonic) as view, _interruptible(view) as stop:
        if len(first := _first_cells(plan, list(openers))) > 1 or plan.sweep:
            kept = sum((directory / f"{cell.id}.json").exists() for cell in first)
            view.said(_how_to_go_on(directory.name, kept))
        result = run_sweep(
            plan,
            directory=directory,
            targets=openers,
            name=name,
            facts=facts,
            cwd=Path.cwd(),
            on_event=_told(view),
            stop=stop,
        )
        return result, stop()


def _server(name: str, url: str, given: Given) -> AbstractContextManager[Ready]:
    source = "--usd-per-hour" if given.usd_per_hour is not None else None
    return server(
        name,
        url,
        model=given.model,
        api_key=given.api_key,
        headers=given.headers,
        usd_per_hour=given.usd_per_hour,
        price_source=source,
    )


def _opener(ready: Ready) -> Opener:
    return lambda: nullcontext(ready)


def _read_files(workloads: Sequence[Workload]) -> None:
    """Raises InputError with the lines that are wrong, before any server is asked."""
    for workload in workloads:
        if workload.dataset is not None:
            read_prompts(Path(workload.dataset).expanduser(), limit=workload.limit)
        if workload.trace is not None:
            read_trace(Path(workload.trace).expanduser(), limit=workload.limit)


def _named(urls: Sequence[str]) -> dict[str, str]:
    """Name -> URL: host and port, and a number where two are the same."""
    found: dict[str, str] = {}
    for url in urls:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if not parts.hostname:
            raise InputError(f"{url!r} is neither the URL of a server nor a recipe file")
        name = parts.hostname + (f":{parts.port}" if parts.port else "")
        found[name if name not in found else f"{name} ({len(found) + 1})"] = url
    return found


def _first_cells(plan: SweepPlan, targets: Sequence[str]) -> list[CellPlan]:
    """The cells that are known before anything is measured: of a search, what it begins with."""
    begin = [sweep.cell(plan, target, workload, 1) for target in targets for workload in plan.asked if plan.sweep]
    return begin or sweep.cells(plan, targets)


def _how_to_go_on(id: str, kept: int) -> str:
    return f"{id}: {kept} cells are there already" if kept else f"{id}: if cut off, add --resume {id} to go on"


def _begun(home: Path, wanted: str, plan: SweepPlan, targets: Sequence[str]) -> Path:
    """The folder of a benchmark that was begun with the same options. Raises InputError where there is none."""
    begun = sorted((path.parent for path in (home / "benchmarks").glob("b-*/lock")), key=lambda path: path.name)
    found = begun[-1:] if wanted == "latest" else [path for path in begun if path.name == wanted]
    if not found:
        known = ", ".join(path.name for path in begun[:-6:-1]) or "none"
        raise InputError(f"no benchmark {wanted!r} was begun here; the newest: {known}")
    kept = {path.stem for path in found[0].glob("*.json")} - {"result"}
    if kept and not kept & {cell.id for cell in _first_cells(plan, targets)}:
        raise InputError(
            f"{found[0].name} was begun with other options: none of its {len(kept)} cells is one of these",
            next_step="repeat its command as it was, or leave out --resume",
        )
    return found[0]


def _new_id() -> str:
    return f"b-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def _told(view: View) -> Callable[..., None]:
    """What a sweep tells, for the view."""

    def on_event(kind: str, /, **data: Any) -> None:
        if kind == "cell.started":
            view.started(_name(data["cell"]), data["place"], data["total"], data["duration_s"])
        elif kind == "progress":
            view.progressed(data["progress"])
        elif kind in ("cell.finished", "cell.failed"):
            view.finished(data["cell"].model_dump(mode="json"))
        elif kind == "log":
            view.said(data["message"])

    return on_event


def _name(cell: CellPlan) -> str:
    if cell.concurrency is None:
        load = f"{cell.rate:g} req/s" if cell.rate is not None else "at its own times"
    else:
        load = f"{cell.concurrency} stream{'s' if cell.concurrency > 1 else ''}"
    return f"{cell.target}, {cell.workload.title}, {load}"


@contextmanager
def _interruptible(view: View) -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C ends the sweep and keeps what there is; the second ends the command."""
    asked: list[bool] = []

    def ask(number: int, frame: Any) -> None:
        asked.append(True)
        signal.signal(signal.SIGINT, before)
        view.said("stopping; what was measured is kept (Ctrl-C again to drop it)")

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)
