"""Fills the report of a run from the store and writes it to `$ORCH_HOME/reports/RUN.html`."""

import importlib.metadata
from pathlib import Path
from typing import Any

from orchestrator import plugins, stages
from orchestrator.digests import digest_value
from orchestrator.errors import InputError, OrchError, from_record
from orchestrator.loadgen import hardware
from orchestrator.planner.plan import Gate, Plan, PlannedTarget
from orchestrator.report.run import GateReport, RunReport, StageReport, TargetReport
from orchestrator.report.words import number
from orchestrator.stages.base import Outputs
from orchestrator.store.records import Event, StageRun
from orchestrator.store.store import Store


def report_path(home: Path, run: str) -> Path:
    """Where the report of a run is."""
    return home / "reports" / f"{run}.html"


def write(store: Store, run: str, *, ended: str, error: OrchError | None = None) -> Path:
    """Write the report of a run that ends now in the state `ended`; the path."""
    from orchestrator.report import bench  # only here: commands that just print paths need no templates
    from orchestrator.report.render import render

    path = report_path(store.home, run)
    path.parent.mkdir(exist_ok=True)
    found = _report(store, run, ended, error)
    path.write_text(render(found), encoding="utf-8")
    if found.benchmark.get("run") == run:
        own = store.home / "benchmarks" / found.benchmark["id"] / "report.html"
        own.parent.mkdir(parents=True, exist_ok=True)
        own.write_text(bench.render(found.benchmark), encoding="utf-8")
    return path


def _report(store: Store, run: str, ended: str, error: OrchError | None) -> RunReport:
    found, events, rows = store.run(run), store.events(run=run), store.stage_runs(run)
    plan = Plan.model_validate(found.plan)
    deployed = next(
        (Outputs.model_validate(row.outputs).report for row in rows if row.stage == "deploy" and row.outputs), {}
    )
    return RunReport(
        run=run,
        recipe=found.name,
        digest=digest_value([stage.digest for stage in plan.stages])[:16],
        state=ended,
        started=found.started,
        ended=events[-1].time,
        owner=found.owner,
        error=error.message if error else None,
        next_step=error.next_step if error else None,
        stages=[_stage(store, row) for row in rows],
        gates=[_gate(gate, events) for gate in plan.gates],
        targets=[_target(target) for target in plan.targets],
        release=deployed.get("release"),
        url=deployed.get("url"),
        hardware=hardware.describe(),
        benchmark=_benchmark(store, rows),
        versions=_versions(rows),
    )


def _benchmark(store: Store, rows: list[StageRun]) -> dict[str, Any]:
    """The result that the benchmark stage has kept, of this run or of the one that it is reused from."""
    outputs = next((row.outputs for row in rows if row.stage == "benchmark" and row.outputs), None)
    kept = Outputs.model_validate(outputs).report.get("result") if outputs else None
    try:
        return store.benchmark(kept["id"]) if kept else {}
    except InputError:  # an older store, or somebody has removed it
        return {}


def _stage(store: Store, row: StageRun) -> StageReport:
    outputs = Outputs.model_validate(row.outputs) if row.outputs else Outputs()
    timed = store.finished_stage(row.digest) if row.state == "reused" else row
    seconds = timed.ended - timed.started if timed and timed.ended and timed.started else None
    error = from_record(row.error).message if row.error else None
    return StageReport(
        name=row.stage, state=row.state, seconds=seconds, error=error, metrics=outputs.metrics, report=outputs.report
    )


def _target(target: PlannedTarget) -> TargetReport:
    return TargetReport(
        name=target.name,
        engine=target.engine,
        quantization=target.quantization,
        environment=target.environment,
        left_out=target.refused if target.left_out else None,
    )


def _gate(gate: Gate, events: list[Event]) -> GateReport:
    judged = [e.data for e in events if e.kind == "gate" and e.data["gate"]["on"] == gate.on]
    verdict = next((data for data in reversed(judged) if Gate.model_validate(data["gate"]) == gate), None)
    if verdict is None:
        return GateReport(name=gate.on, limit=_limit(gate), verdict="not judged")
    state = "passed" if verdict["passed"] else "failed"
    return GateReport.model_validate(
        {"name": gate.on, "value": verdict["value"], "limit": _limit(gate), "verdict": state}
    )


def _limit(gate: Gate) -> str:
    bounds = (("at least", gate.min), ("at most", gate.max))
    shown = [(words, number(value, gate.on)) for words, value in bounds if value is not None]
    return ", ".join(text if text in ("yes", "no") else f"{words} {text}" for words, text in shown)


def _versions(rows: list[StageRun]) -> dict[str, str]:
    libraries = {library for row in rows for library in plugins.load(stages, row.stage).LIBRARIES} | {"orch", "ray"}
    found = {}
    for library in sorted(libraries):
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = "not installed"
    return found
