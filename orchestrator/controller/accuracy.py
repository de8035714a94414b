"""How well the plans of past runs held: what each stage was predicted to need, beside what it was measured to need.

Only stages that a run has carried out itself count, in one attempt: a reused stage was not measured again, and one that
was interrupted has two halves.
"""

from collections.abc import Iterator
from typing import Any

from orchestrator.config import Model
from orchestrator.controller.history import PREFIX
from orchestrator.errors import InputError
from orchestrator.planner.estimate import Estimate, Unknown
from orchestrator.planner.forecast import Forecast, LoadForecast, Price, TargetForecast
from orchestrator.planner.plan import Plan
from orchestrator.stages.base import Outputs
from orchestrator.store.records import Run, StageRun
from orchestrator.store.store import Store

NOT_TORCH = "context"
"""The term of a memory estimate that torch's own counters do not see."""


class Held(Model):
    """One number that a plan predicted and its run measured."""

    run: str
    """Id."""
    stage: str
    """Of the run."""
    quantity: str
    """time, memory, cost, or a target's latency or throughput under a load."""
    unit: str
    """s, bytes, USD or tokens/s."""
    predicted: float | None
    """The middle; None: the plan said that it does not know."""
    low: float | None
    """The lower end."""
    high: float | None
    """The upper end."""
    measured: float
    """By the run."""
    how: str
    """By what it was measured."""
    why_unknown: str | None = None
    """Why nothing was predicted."""

    @property
    def error(self) -> float | None:
        """predicted / measured - 1; None without a prediction."""
        return self.predicted / self.measured - 1 if self.predicted is not None and self.measured else None

    @property
    def inside(self) -> bool | None:
        """Whether the interval holds what was measured."""
        if self.low is None or self.high is None or self.predicted is None:
            return None
        return self.low <= self.measured <= self.high


def accuracy(store: Store, recipe: str | None = None, limit: int = 100) -> list[Held]:
    """Of the newest runs, or of those of one recipe by its name; the newest first."""
    runs = [run for run in store.runs(limit) if recipe in (None, run.name)]
    return [held for run in runs for held in of_run(store, run)]


def of_run(store: Store, run: Run) -> Iterator[Held]:
    """One run."""
    plan = Plan.model_validate(run.plan)
    if plan.forecast is None:
        return
    for row in store.stage_runs(run.id):
        if row.state == "succeeded" and row.attempts == 1 and row.started and row.ended:
            yield from _stage(run.id, plan.forecast, row, row.ended - row.started)
            if row.stage == "benchmark":
                yield from _targets(store, run.id, plan.forecast, row)


def _stage(run: str, forecast: Forecast, row: StageRun, seconds: float) -> Iterator[Held]:
    predicted = forecast.stage(row.stage)
    if predicted is None:
        return
    yield _held(run, row.stage, "time", "s", predicted.time, seconds, "from its start to its end")
    if isinstance(forecast.price, Price):
        cost = seconds / 3600 * forecast.price.usd_per_hour
        yield _held(run, row.stage, "cost", "USD", predicted.cost, cost, f"time x ${forecast.price.usd_per_hour:.2f}/h")
    for worker, peak in _peaks(row).items():
        if worker == row.stage:
            yield _held(run, row.stage, "memory", "bytes", *_like(predicted.memory, peak))


def _peaks(row: StageRun) -> dict[str, Any]:
    report = Outputs.model_validate(row.outputs).report if row.outputs else {}
    return dict(report.get("peak_memory", {}))


def _like(predicted: Estimate | Unknown | None, peak: dict[str, Any]) -> tuple[Estimate | Unknown | None, float, str]:
    """What was predicted, as the measurement counts: torch does not see the driver's context."""
    if "reserved" not in peak and isinstance(predicted, Estimate) and predicted.source.startswith(PREFIX):
        return predicted, peak["rss"], "peak RSS of a CPU process"
    if "reserved" not in peak:
        return Unknown(reason="unknown: memory is not predicted for the CPU"), peak["rss"], "peak RSS of a CPU process"
    if isinstance(predicted, Estimate):
        unseen = sum(term.amount for term in predicted.terms if term.name == NOT_TORCH)
        ends = {name: getattr(predicted, name) - unseen for name in ("value", "low", "high")}
        predicted = predicted.model_copy(update=ends)
    return predicted, peak["reserved"], "torch.cuda.max_memory_reserved, without the driver's context"


def _targets(store: Store, run: str, forecast: Forecast, row: StageRun) -> Iterator[Held]:
    """Latencies and throughput of each load that was both predicted and measured."""
    kept = Outputs.model_validate(row.outputs).report.get("result") if row.outputs else None
    try:
        result = store.benchmark(kept["id"]) if kept else {"cells": []}
    except InputError:  # somebody has removed it
        return
    for target in forecast.targets:
        for cell in result["cells"]:
            load = _load(target, cell)
            if load is not None:
                yield from _cell(run, f"{target.name}, {_words(load)}", load, cell["summary"])


def _load(target: TargetForecast, cell: dict[str, Any]) -> LoadForecast | None:
    if cell["target"] != target.name or cell["state"] != "done" or not cell.get("summary"):
        return None
    asked = (cell.get("concurrency"), None if cell.get("concurrency") else cell.get("rate"))
    return next((load for load in target.loads if (load.concurrency, load.rate) == asked), None)


def _words(load: LoadForecast) -> str:
    return f"{load.concurrency} at once" if load.concurrency else f"{load.rate or 0:g}/s"


def _cell(run: str, where: str, load: LoadForecast, summary: dict[str, Any]) -> Iterator[Held]:
    rate = summary["output_tokens_per_s"]
    yield _held(run, "benchmark", f"{where}: throughput", "tokens/s", load.throughput, rate, "benchmark")
    for name, predicted in (("ttft", load.ttft), ("tpot", load.tpot)):
        spread = summary["latencies"].get(name)
        if spread:
            yield _held(run, "benchmark", f"{where}: {name.upper()}", "s", predicted, spread["mean"], "benchmark")


def _held(
    run: str,
    stage: str,
    quantity: str,
    unit: str,
    predicted: Estimate | Unknown | None,
    measured: float,
    how: str,
) -> Held:
    known: dict[str, Any]
    if isinstance(predicted, Estimate):
        known = {"predicted": predicted.value, "low": predicted.low, "high": predicted.high}
    else:
        why = predicted.reason if predicted else "unknown: not predicted"
        known = {"predicted": None, "low": predicted.low if predicted else None, "high": None, "why_unknown": why}
    found = {"run": run, "stage": stage, "quantity": quantity, "unit": unit, "measured": measured, "how": how}
    return Held.model_validate(found | known)
