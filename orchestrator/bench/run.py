"""Runs a sweep: opens each target, measures its cells one after another, and keeps each as soon as it has ended.

    targets = {"mine": lambda: targets.server("mine", "http://127.0.0.1:8000/v1")}
    result = run_sweep(SweepPlan(concurrency=[1, 8]), directory=home / "benchmarks" / id, targets=targets)

The folder's name is the result's id. Per cell it holds `<cell id>.json` and `<cell id>.records`, both written whole or
not at all: the same plan in the same folder goes on where it was killed; a cell that failed is tried again. What ends
a cell early, or keeps a target from opening, becomes the cause of a failed cell, and the sweep goes on.

`on_event(kind, **data)` tells what happens:
    cell.started    cell (CellPlan), place (from 1), total (None while a search decides), duration_s (None: by number)
    progress        cell (CellPlan), progress (loadgen.load.Progress)
    cell.finished   cell (bench.result.Cell)
    cell.failed     cell (bench.result.Cell)
    search          search (bench.result.Search)
    log             message
"""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from orchestrator import __version__
from orchestrator.bench import search, sweep
from orchestrator.bench.cell import OnEvent, Setting, cell_of, measure_cell
from orchestrator.bench.parity import parity
from orchestrator.bench.result import Cell, Result, Search, Target
from orchestrator.bench.sweep import CellPlan, SweepPlan
from orchestrator.bench.targets import Opener, Ready
from orchestrator.errors import InfrastructureError, InputError, OrchError
from orchestrator.loadgen import drive, hardware
from orchestrator.loadgen.load import Measurement
from orchestrator.loadgen.workload.spec import Workload

_NOT_SETTINGS = {"workload", "workloads", "slo"}
"""Fields of the plan that stand elsewhere in a result."""


def run_sweep(
    plan: SweepPlan,
    *,
    directory: Path,
    targets: Mapping[str, Opener],
    name: str = "benchmark",
    facts: Mapping[str, Any] | None = None,
    cwd: Path = Path(),
    default_prompts: Sequence[Any] | None = None,
    on_event: OnEvent = lambda kind, /, **data: None,
    stop: Callable[[], bool] = lambda: False,
    measure: Callable[..., Measurement] = drive.measure,
) -> Result:
    """Measure every cell and return the result, which also lies in `directory` as result.json.

    `facts` are more fields of the Result: run, service, recipe_digest. Files of a workload are found from `cwd` on, and
    `default_prompts` are asked where it names none. Once `stop` says so, the cell that runs becomes a failed one and no
    other is begun. Raises InputError when bad input kept every cell from being measured, and when another process is at
    work in the folder.
    """
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(directory / "lock", timeout=0):
            setting = Setting(plan, directory, cwd, default_prompts, _once(on_event), stop, measure)
            return _Sweep(setting).run(targets, name, facts or {})
    except Timeout:
        raise InputError(
            f"another process measures in {directory}", next_step="wait for it, or stop it first"
        ) from None


def _once(on_event: OnEvent) -> OnEvent:
    """The same, but no message is said twice."""
    said = set[str]()

    def tell(kind: str, /, **data: Any) -> None:
        if kind != "log" or data["message"] not in said:
            on_event(kind, **data)
        said.add(data.get("message", ""))

    return tell


class _Sweep:
    def __init__(self, setting: Setting) -> None:
        self.setting, self.plan, self.directory = setting, setting.plan, setting.directory
        self.on_event, self.stop = setting.on_event, setting.stop
        self.cells: list[Cell] = []
        self.searches: list[Search] = []
        self.targets: dict[str, Target] = {}
        self.workloads: dict[str, dict[str, Any]] = {}
        self.total: int | None = None
        self.bad_input: InputError | None = None

    def run(self, targets: Mapping[str, Opener], name: str, facts: Mapping[str, Any]) -> Result:
        created = time.time()
        planned = sweep.cells(self.plan, list(targets))
        self.total = None if self.plan.sweep else len(planned)
        for target in sweep.in_order(self.plan, list(targets)):
            with _Target(self, target, targets[target]) as opened:
                for cell in planned:
                    if cell.target == target:
                        opened.cell(cell)
                for workload in self.plan.asked if self.plan.sweep else ():
                    self._search(opened, workload)
        if self.bad_input and all(cell.state == "failed" for cell in self.cells):
            raise self.bad_input
        result = Result(
            id=self.directory.name,
            name=name,
            created=min([created, *(cell.started for cell in self.cells)]),
            orch_version=__version__,
            client_hardware=hardware.describe(),
            slo=self.plan.slo,
            workloads=self.workloads,
            settings=self.plan.model_dump(mode="json", include=set(SweepPlan.model_fields) - _NOT_SETTINGS),
            targets=[self.targets[target] for target in targets if target in self.targets],
            cells=self.cells,
            searches=self.searches,
            prompt_parity=parity(self.cells, list(targets), self.directory),
            **facts,
        )
        _write(self.directory / "result.json", result.model_dump_json(indent=1))
        return result

    def _search(self, opened: "_Target", workload: Workload) -> None:
        seen: list[search.Outcome] = []
        while not self.stop():
            step = search.next_step(seen, self.plan.slo, max_trials=self.plan.max_trials)
            if isinstance(step, search.Answer):
                found = Search(target=opened.name, workload=workload.title, **dataclasses.asdict(step))
                self.searches.append(found)
                self.on_event("search", search=found)
                return
            planned = sweep.cell(self.plan, opened.name, workload, step.concurrency, step.rate, step.repeat)
            seen.append(_outcome(step, opened.cell(planned)))

    def keep(self, cell: Cell, facts: Mapping[str, Any] | None, target: Target) -> Cell:
        """Note a cell that has ended, and write it down."""
        self.cells.append(cell)
        if facts:
            self.workloads.setdefault(cell.workload, dict(facts))
        stored = {"cell": cell.model_dump(mode="json"), "facts": facts, "target": target.model_dump()}
        _write(self.directory / f"{cell.id}.json", json.dumps(stored))
        self.on_event("cell.finished" if cell.state == "done" else "cell.failed", cell=cell)
        return cell

    def stored(self, planned: CellPlan) -> Cell | None:
        """The cell that an earlier attempt finished."""
        path = self.directory / f"{planned.id}.json"
        if not path.is_file():
            return None
        kept = json.loads(path.read_text())
        cell = Cell.model_validate(kept["cell"]).model_copy(update={"order": len(self.cells)})
        if cell.state != "done":
            return None
        self.workloads.setdefault(cell.workload, kept["facts"])
        self.targets.setdefault(cell.target, Target.model_validate(kept["target"]))
        self.cells.append(cell)
        return cell


class _Target:
    """One target: opened when its first cell needs it, closed at the end."""

    def __init__(self, running: _Sweep, name: str, opener: Opener) -> None:
        self.name, self._sweep, self._opener = name, running, opener
        self._context: AbstractContextManager[Ready] | None = None
        self._ready: Ready | None = None
        self._why_not: str | None = None

    def __enter__(self) -> "_Target":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._context is not None and self._ready is not None:
            self._context.__exit__(*error)

    def cell(self, planned: CellPlan) -> Cell | None:
        """The cell, stored or measured now; None when the sweep is being stopped."""
        kept = self._sweep.stored(planned)
        if kept is not None or self._sweep.stop():
            return kept
        running, order, started = self._sweep, len(self._sweep.cells), time.time()
        seconds = sweep.duration_s(running.plan, planned)
        running.on_event("cell.started", cell=planned, place=order + 1, total=running.total, duration_s=seconds)
        try:
            ready = self._open()
            return running.keep(*measure_cell(running.setting, planned, ready, order), ready.target)
        except (InputError, InfrastructureError) as error:
            if isinstance(error, InputError):
                running.bad_input = running.bad_input or error
            return running.keep(cell_of(planned, started, order, error.message), None, self._known())

    def _open(self) -> Ready:
        if self._why_not is not None:
            raise InfrastructureError(self._why_not)
        if self._ready is None:
            self._context = self._opener()
            try:
                self._ready = self._context.__enter__()
            except OrchError as error:
                self._why_not = error.message
                raise
            finally:
                self._sweep.targets[self.name] = self._known()
        return self._ready

    def _known(self) -> Target:
        return self._ready.target if self._ready else Target(name=self.name, url="", model="")


def _outcome(trial: search.Trial, cell: Cell | None) -> search.Outcome:
    summary = cell.summary if cell and cell.state == "done" else None
    if summary is None:
        return search.Outcome(trial, 0.0, 0.0, 0.0, False)
    return search.Outcome(
        trial, summary.output_tokens_per_s, summary.requests_per_s, summary.goodput, summary.keeps_slo
    )


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
