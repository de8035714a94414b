"""What commands print: plans, origins, runs, services and releases, as tables or as JSON."""

import json
import os
import re
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestrator.cli import plan_show, plan_targets
from orchestrator.controller import gates, reporting
from orchestrator.documents import Key
from orchestrator.planner.plan import Plan
from orchestrator.recipe.load import Loaded
from orchestrator.serving import gateway
from orchestrator.stages.base import Outputs
from orchestrator.store.records import Release, Run, StageRun
from orchestrator.store.store import Store
from orchestrator.validation import dotted, origin

_HIGHLIGHTS = {
    "data": ("train_rows", "test_rows", "leaked"),
    "train": ("steps", "loss", "tokens_per_s"),
    "evaluate": ("exact_match", "exact_match.base", "exact_match.gain"),
    "parity": ("*.kl_mean", "*.exact_match"),
    "benchmark": ("*.ttft_p95", "*.tokens_per_s", "*.errors"),
}
"""`*.x` stands for that metric of every target."""


def console() -> Console:
    """Where tables go; wide enough for a pipe to keep whole lines, unless $COLUMNS says how wide it is."""
    found = Console(highlight=False)
    return found if found.is_terminal or os.environ.get("COLUMNS") else Console(highlight=False, width=160)


def plan(found: Plan) -> None:
    """The plan as a table."""
    out = console()
    on = f"{found.accelerator} of " if found.accelerator else ""
    out.print(f"[bold]{found.recipe}[/] on {on}cluster {found.cluster.name} ({found.cluster.address})")
    table = Table("stage", "needs", "digest", "", box=None, padding=(0, 2, 0, 0))
    for stage in found.stages:
        need = stage.resources
        wants = f"{need.num_cpus:g} CPU" + (f", {need.num_gpus:g} GPU" if need.num_gpus else "")
        state = f"[cyan]reused from {stage.reused_from}[/]" if stage.reused_from else "will run"
        table.add_row(stage.name, wants, stage.digest[:12], state)
    out.print(table)
    for gate in found.gates:
        out.print(f"gate   {gate.on}  {gates.limits(gate)}")
    for gate in found.skipped_gates:
        out.print(f"gate   {gate.on}  {gates.limits(gate)}  [yellow]skipped: its target is left out[/]")
    plan_targets.overview(out, found)
    plan_show.forecast(out, found)
    told = plan_show.told(found)
    for obstacle in (obstacle for obstacle in found.obstacles if obstacle not in told):
        out.print(f"[red]cannot run here[/]: {escape(obstacle)}")
    for why in dict.fromkeys(told[obstacle] for obstacle in found.obstacles if obstacle in told):
        out.print(f"[red]must not run[/]: {why}")
    if found.obstacles and found.advice:
        out.print(f"  next: {escape(found.advice)}")


def origins(loaded: Loaded) -> None:
    """Every value of the recipe and where it came from; the schema's own defaults too."""
    table = Table("key", "value", "from", box=None, padding=(0, 2, 0, 0))
    for key, value in _leaves(loaded.recipe.model_dump(mode="json"), ()):
        written = origin(loaded.document, key) if key in loaded.document.origins else "built-in default"
        table.add_row(dotted(key), json.dumps(value), str(written))
    console().print(table)


def started(found: Plan, run: str) -> None:
    """One line when a run begins."""
    again = [stage.name for stage in found.stages if stage.reused_from]
    reuses = f"; reuses {', '.join(again)}" if again else ""
    console().print(f"[bold]{run}[/]: {len(found.stages) - len(again)} of {len(found.stages)} stages to run{reuses}")
    for target in found.targets:
        if target.left_out:
            console().print(f"  not runnable here, left out: {target.name}: {escape(target.refused or '')}")


def reused(found: Plan, store: Store) -> None:
    """A run with nothing to do: every stage stands. Raises GateFailedError where a gate does not hold."""
    for stage in found.stages:
        made = store.finished_stage(stage.digest)
        metrics = Outputs.model_validate(made.outputs).metrics if made else {}
        gates.enforce(gates.judge(found.gates, stage.name, metrics))
    console().print(f"[bold]{found.recipe}[/]: all {len(found.stages)} stages have run before with these inputs")
    last = found.stages[-1].reused_from
    if last:
        _outcome(store, last)


def ended(store: Store, run: str) -> None:
    """How a run ended, and where to look."""
    found, out = store.run(run), console()
    took = f" in {duration(found.ended - found.started)}" if found.ended and found.started else ""
    out.print(f"[bold]{run}[/] {found.state}{took}")
    _outcome(store, run)


def _outcome(store: Store, run: str) -> None:
    out = console()
    for row in store.stage_runs(run):
        if row.stage == "evaluate" and row.outputs:
            out.print(f"  evaluate  {highlights(row)}")
        if row.stage == "promote" and row.state in ("succeeded", "reused"):
            _serving(store, Outputs.model_validate(row.outputs).report["service"])
    path = reporting.report_path(store.home, run)
    if path.exists():
        out.print(f"  report    {path}", soft_wrap=True)


def _serving(store: Store, service: str) -> None:
    out, current = console(), store.service(service).current
    if current is None:
        return
    url = gateway.url(store.release(service, current).spec["port"])
    out.print(f"  serving   [bold]{service}@{current}[/] at [bold]{url}[/]")
    body = json.dumps({"model": service, "messages": [{"role": "user", "content": "Hello"}]})
    out.print(
        f"  try       curl {url}/chat/completions -H 'content-type: application/json' -d '{body}'", soft_wrap=True
    )


def run(store: Store, name: str, *, as_json: bool) -> None:
    """The stages of a run."""
    found, rows = store.run(name), store.stage_runs(name)
    if as_json:
        print(
            json.dumps({**found.model_dump(exclude={"plan"}), "stages": [row.model_dump() for row in rows]}, indent=2)
        )
        return
    table = Table("stage", "state", "time", "tries", "", box=None, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(row.stage, row.state, seconds(row), str(row.attempts or ""), highlights(row))
    console().print(f"[bold]{name}[/] {found.state}, by {found.owner}")
    if found.state == "queued":
        console().print(f"  {escape(waits(found))}")
    console().print(table)
    if found.error:
        console().print(f"[red]{found.error['type']}[/]: {escape(found.error['message'])}")
    _outcome(store, name)


def waits(found: Run) -> str:
    """What a queued run waits for, and when it will probably start."""
    if not found.wait:
        return "waits for the controller"
    expected = found.wait.get("expected")
    start = f"; expected to start {when(expected)}" if expected else ""
    return f"{found.wait['reason']}{start}"


def status(store: Store, *, as_json: bool) -> None:
    """Services with what they serve, then the newest runs."""
    services, runs = store.services(), store.runs()
    if as_json:
        listed = [{k: v for k, v in run.model_dump().items() if k != "plan"} for run in runs]
        print(json.dumps({"services": [service.model_dump() for service in services], "runs": listed}, indent=2))
        return
    out = console()
    if not services and not runs:
        out.print("nothing has run yet; `orch run recipes/quickstart.yaml` is a start")
    for service in services:
        warm = [release.name for release in store.releases(service.name) if release.state == "warm"]
        serving = f"{service.name}@{service.current}" if service.current else "nothing promoted"
        out.print(f"[bold]{service.name}[/]  serving {serving}  warm: {', '.join(warm) or 'none'}")
    table = Table("run", "state", "started", "by", "", box=None, padding=(0, 2, 0, 0))
    for found in runs:
        at = next((row.stage for row in store.stage_runs(found.id) if row.state in ("running", "failed")), "")
        about = waits(found) if found.state == "queued" else at
        table.add_row(found.id, found.state, when(found.created), found.owner, escape(about))
    if runs:
        out.print(table)


def releases(store: Store, service: str | None, *, as_json: bool) -> None:
    """Releases of one service, or of all, with the switches between them."""
    names = [store.service(service).name] if service else [found.name for found in store.services()]
    if as_json:
        print(json.dumps([release.model_dump() for name in names for release in store.releases(name)], indent=2))
        return
    for name in names:
        current = store.service(name).current
        table = Table("release", "state", "made by", "created", "", box=None, padding=(0, 2, 0, 0))
        for release in store.releases(name):
            table.add_row(release.name, release.state, release.run, when(release.created), _role(release, current))
        console().print(table)
        for event in store.events(service=name):
            if event.kind in ("release.promoted", "release.rolled_back"):
                data = event.data
                reason = f": {escape(data['reason'])}" if data["reason"] else ""
                what = f"{event.kind.split('.')[1].replace('_', ' ')} to {name}@{data['release']}"
                console().print(f"  {when(event.time)}  {what} by {event.who}{reason}")
    if not names:
        console().print("nothing has been released yet")


def _leaves(value: Any, key: Key) -> Iterator[tuple[Key, Any]]:
    if isinstance(value, dict | list) and value:
        for part, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, (*key, part))
    else:
        yield key, value


def highlights(row: StageRun) -> str:
    """The few numbers of a stage that say most."""
    if not row.outputs:
        return ""
    metrics = Outputs.model_validate(row.outputs).metrics
    patterns = [re.escape(name).replace(r"\*", "[^.]+") for name in _HIGHLIGHTS.get(row.stage, ())]
    names = [name for pattern in patterns for name in metrics if re.fullmatch(pattern, name)]
    return "  ".join(f"{name} {metrics[name]:.4g}" for name in names)


def seconds(row: StageRun) -> str:
    """How long a stage took, or takes so far."""
    if row.started is None or row.state == "pending":
        return ""
    return duration((row.ended or time.time()) - row.started)


def _role(release: Release, current: int | None) -> str:
    if release.number == current:
        return "serving"
    return "rolled back from" if release.withdrawn else ""


def duration(amount: float) -> str:
    """Seconds, or minutes and seconds."""
    minutes, rest = divmod(amount, 60)
    return f"{minutes:.0f} min {rest:.0f} s" if minutes else f"{rest:.1f} s"


def when(moment: float) -> str:
    """A local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
