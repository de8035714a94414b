"""Measures one cell of a sweep: builds its requests, sends them, reads the server's metrics beside, sums up.

A closed loop that was not steady is measured once more for the same length, at once and with its own warm-up: what ran
before was the warm-up that it lacked. An open loop is not: where its queue grows, that is the result.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from orchestrator.bench import sweep
from orchestrator.bench.result import Cell, EngineSample, Summary
from orchestrator.bench.summary import summarize
from orchestrator.bench.sweep import CellPlan, SweepPlan
from orchestrator.bench.targets import Ready
from orchestrator.loadgen import drive
from orchestrator.loadgen.load import Load, Measurement, Progress
from orchestrator.loadgen.scrape import Scraper
from orchestrator.loadgen.workload.config import DISTINCT, Prepared, build

HOPELESS = 8
"""A cell whose first so many requests (or as many as it has streams) all failed is ended."""
LOST_S = 5.0
"""So is a closed loop in which nothing has succeeded for so long while so many failed: a server that is gone refuses
tens of thousands of requests a second."""


class OnEvent(Protocol):
    """Told what happens; `bench/run.py` lists the kinds."""

    def __call__(self, kind: str, /, **data: Any) -> None: ...


@dataclass(frozen=True)
class Setting:
    """What the cells of a sweep share."""

    plan: SweepPlan
    directory: Path
    """Of the result."""
    cwd: Path
    """Files of a workload are found from here on."""
    default_prompts: Sequence[Any] | None
    on_event: OnEvent
    stop: Callable[[], bool]
    measure: Callable[..., Measurement]
    """As `loadgen.drive.measure`."""


def measure_cell(setting: Setting, planned: CellPlan, ready: Ready, order: int) -> tuple[Cell, dict[str, Any]]:
    """The cell, done or failed, and the facts of its workload. Its records are kept in any case.

    Raises InputError for a workload that cannot be built, InfrastructureError when the load generator breaks.
    """
    return _Measuring(setting, planned, ready).run(order)


def cell_of(planned: CellPlan, started: float, order: int, cause: str | None, **more: Any) -> Cell:
    """The cell of a plan; one with a cause has failed."""
    return Cell(
        id=planned.id,
        target=planned.target,
        workload=planned.workload.title,
        mode=planned.mode,
        **{"concurrency": planned.concurrency, "rate": planned.rate} | more,
        state="failed" if cause else "done",
        cause=cause,
        started=started,
        order=order,
    )


class _Measuring:
    def __init__(self, setting: Setting, planned: CellPlan, ready: Ready) -> None:
        self._setting, self._plan, self._cell, self._ready = setting, setting.plan, planned, ready
        self._closed = planned.mode == "closed"
        self._started, self._begun = time.time(), time.monotonic()
        self._progress: Progress | None = None
        self._good, self._good_at, self._failed_at_good = 0, 0.0, 0
        """Successes so far, when the last of them was seen, and how many had failed by then."""
        self._ended_by: str | None = None
        """Why it is ended early."""

    def run(self, order: int) -> tuple[Cell, dict[str, Any]]:
        cell, prepared = self._cell, self._prepared()
        measurement, summary = self._steady(self._load(prepared.path), prepared)
        records = f"{cell.id}.records"
        drive.save_records(self._setting.directory / records, measurement)
        cause = self._ended_by or _all_failed(summary)
        rate = cell.rate if self._closed or cell.rate else _own_rate(prepared)
        ended = cell_of(cell, self._started, order, cause, summary=summary, records=records, rate=rate)
        settings = cell.workload.model_dump(mode="json", exclude_defaults=True)
        return ended, {"settings": settings, **prepared.facts}

    def _prepared(self) -> Prepared:
        plan, seconds = self._plan, sweep.duration_s(self._plan, self._cell)
        count = sweep.num_requests(plan, self._cell)
        distinct = min(DISTINCT, count + sweep.warmup_requests(plan, self._cell)) if count else None
        return build(
            self._cell.workload,
            self._ready.server,
            seed=plan.seed,
            mode=self._cell.mode,
            rate=self._cell.rate,
            duration_s=None if self._closed or seconds is None else seconds + plan.warmup_duration,
            num_requests=distinct if self._closed else None,
            max_tokens=plan.max_tokens,
            temperature=plan.temperature,
            cwd=self._setting.cwd,
            default_prompts=self._setting.default_prompts,
        )

    def _load(self, path: str) -> Load:
        plan = self._plan
        return Load(
            url=self._ready.server.url,
            path=path,
            headers=self._ready.headers,
            concurrency=self._cell.concurrency,
            num_requests=sweep.num_requests(plan, self._cell) if self._closed else None,
            duration_s=sweep.duration_s(plan, self._cell) if self._closed else None,
            warmup_requests=sweep.warmup_requests(plan, self._cell),
            warmup_s=0.0 if self._closed else plan.warmup_duration,
            timeout_s=plan.request_timeout,
            stall_s=plan.stall_timeout,
            workers=plan.workers,
            seed=plan.seed,
            says_done=self._ready.server.says_done,
        )

    def _steady(self, load: Load, prepared: Prepared) -> tuple[Measurement, Summary]:
        measurement, summary = self._measured(load, prepared)
        if not self._closed or summary.steady is not False or self._ended_by:
            return measurement, summary
        first, note = (measurement, summary), summary.steady_note
        self._setting.on_event("log", message=f"{self._cell.target}: not steady ({note}); measured again for as long")
        self._progress = None
        measurement, summary = self._measured(load, prepared)
        why = self._ended_by or _all_failed(summary)
        if why is not None:  # what there is, is kept: the first time had its end, and successes
            self._ended_by = None
            return first[0], first[1].model_copy(update={"steady_note": f"{note}; measured again in vain: {why}"})
        notes = (summary.steady_note, f"measured a second time: {note}")
        return measurement, summary.model_copy(update={"steady_note": "; ".join(note for note in notes if note)})

    def _measured(self, load: Load, prepared: Prepared) -> tuple[Measurement, Summary]:
        setting, target = self._setting, self._ready.target
        with Scraper(load.url, headers=load.headers) as scraper:
            measurement = setting.measure(
                load, prepared.requests, directory=setting.directory / "work", on_progress=self._follow, stop=self._stop
            )
        if not scraper.samples:
            setting.on_event("log", message=f"{target.name}: {scraper.note}")
        samples = [
            EngineSample(t=(sample.at - measurement.start) / 1e9, **dataclasses.asdict(sample.metrics))
            for sample in scraper.samples
        ]
        price, plan = target.usd_per_hour, self._plan
        return measurement, summarize(measurement, slo=plan.slo, usd_per_hour=price, engine=samples, seed=plan.seed)

    def _follow(self, progress: Progress) -> None:
        failed = sum(progress.errors.values())
        if self._progress is None or progress.ended - failed != self._good:
            self._good, self._good_at, self._failed_at_good = progress.ended - failed, time.monotonic(), failed
        self._progress = progress
        self._setting.on_event("progress", cell=self._cell, progress=progress)

    def _stop(self) -> bool:
        self._ended_by = self._ended_by or self._why_stop()
        return self._ended_by is not None

    def _why_stop(self) -> str | None:
        plan, seen = self._plan, self._progress
        if self._setting.stop():
            return "stopped before its end"
        if time.monotonic() - self._begun > plan.cell_timeout:
            return f"not complete after {plan.cell_timeout} (cell_timeout)"
        failed = sum(seen.errors.values()) if seen else 0
        if seen is None or not failed:
            return None
        if plan.max_errors and failed >= plan.max_errors:
            return f"ended after {failed} errors ({_counted(seen.errors)}); max_errors is {plan.max_errors}"
        if not plan.max_errors and failed == seen.ended >= max(HOPELESS, self._cell.concurrency or 0):
            return f"ended, since the first {failed} requests all failed ({_counted(seen.errors)})"
        lost, many = failed - self._failed_at_good, max(HOPELESS, self._cell.concurrency or 0)
        if not plan.max_errors and self._closed and lost >= many and time.monotonic() - self._good_at > LOST_S:
            return f"ended, since the last {lost} requests all failed ({_counted(seen.errors)})"
        return None


def _counted(errors: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in errors.items())


def _all_failed(summary: Summary) -> str | None:
    """The cause of a cell without a success."""
    if summary.succeeded:
        return None
    if not summary.errors:
        all_warm = (
            f": all {summary.warmup_requests} fell into it, so make it shorter" if summary.warmup_requests else ""
        )
        return f"no request was sent after the warm-up{all_warm}"
    said = f"; for example: {summary.error_example}" if summary.error_example else ""
    return f"all {summary.requests} requests failed ({_counted(summary.errors)}){said}"


def _own_rate(prepared: Prepared) -> float | None:
    """Requests/s of a trace at its own times."""
    times = [request.at for request in prepared.requests if request.at is not None]
    return float(f"{len(times) / max(times):.3g}") if times and max(times) > 0 else None
