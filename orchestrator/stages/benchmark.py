"""The `benchmark` stage: latency and throughput of releases, exports and other servers, in one sweep.

The deployed release is measured at its engine, not through the gateway. Other exports are started here on their own
engines, one after another; `servers` run somewhere else already. `bench/` does the sweep, `bench/flat.py` names its
metrics; the result lies in `$ORCH_HOME/benchmarks/<id>/` and in the store.
"""

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator

from orchestrator import engines, plugins
from orchestrator.bench import flat, targets
from orchestrator.bench.result import Cell, Result
from orchestrator.bench.sweep import SweepPlan
from orchestrator.bench.targets import Opener, Ready
from orchestrator.config import Model
from orchestrator.digests import digest_value
from orchestrator.engines import running
from orchestrator.errors import EngineError, InputError
from orchestrator.loadgen.workload.prompts import read_prompts
from orchestrator.loadgen.workload.trace import read_trace
from orchestrator.planner.plan import Plan
from orchestrator.stages.base import Context, Emit, Outputs, Resources, local_path
from orchestrator.store.store import Store
from orchestrator.units import Usd

LIBRARIES: tuple[str, ...] = ()
METRICS = flat.NAMES
_PROGRESS_EVERY_S = 1.0
_SECRET = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}")


def _named_secret(value: str) -> str:
    if not _SECRET.fullmatch(value):
        raise ValueError("a key is named and never written: ${NAME} stands for the environment variable NAME")
    return value


class ExternalServer(Model):
    """An OpenAI-compatible server that runs somewhere else."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """Name of the target, for gates and reports."""
    url: str
    """Base URL of its API, such as http://10.0.0.7:8000/v1."""
    model: str | None = None
    """What requests name; default: the server's only model."""
    api_key: Annotated[str, AfterValidator(_named_secret)] | None = None
    """${NAME} of the environment variable that holds the key."""
    usd_per_hour: Usd | None = None
    """Price of its hardware, for $ per million tokens."""

    @field_validator("url")
    @classmethod
    def _an_address(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError(f"a server's address begins with http:// or https://; found {value!r}")
        return value


class Section(SweepPlan):
    """The `benchmark` section of a recipe."""

    targets: list[str] = []
    """Names of exports to measure; default: the one that is deployed, or all of them where none is."""
    servers: list[ExternalServer] = []
    """Other servers to measure beside them, or alone."""
    engine_args: dict[str, dict[str, Any]] = {}
    """By target: options of the engine that is started for it. Default: those of `serve`, if the engine is the same."""


class Config(Section):
    """The section, and what the rest of the recipe and the cluster add to it."""

    deployed: str | None = None
    """The target whose engine runs already."""
    num_gpus: float = 0
    """Accelerators of each engine that is started here."""
    usd_per_hour: float | None = None
    """Price of what an engine holds of its node; None: not known."""
    price_source: str | None = None
    """Where the price comes from."""

    @property
    def started(self) -> list[str]:
        """Targets whose engines are started here."""
        return [name for name in self.targets if name != self.deployed]


def estimate(config: Config) -> Resources:
    """One core for the client, and the accelerators of an engine that it starts itself."""
    return Resources(num_cpus=1, num_gpus=config.num_gpus if config.started else 0)


def check(section: Section, cwd: Path) -> None:
    """Raises InputError for a key that is not set, and for lines of prompts or of a trace that cannot be read."""
    for server in section.servers:
        if server.api_key:
            _secret(server.api_key)
    for workload in section.asked:
        if workload.dataset:
            read_prompts(local_path(workload.dataset, cwd), limit=workload.limit)
        if workload.trace:
            read_trace(local_path(workload.trace, cwd), limit=workload.limit)


def refresh(outputs: Outputs, home: Path) -> Outputs | None:
    """None where servers were measured that somebody else runs: what they do now is not known from what they did."""
    return None if outputs.report.get("servers") else outputs


def run(config: Config, context: Context) -> Outputs:
    """Measure every target. Raises EngineError when all cells of the deployed release failed, or all there are."""
    from orchestrator.bench.run import run_sweep  # a plan needs none of the load generator

    openers, store = _openers(config, context), Store(context.home)
    of_run = store.run(context.run)
    deployed = _report(context, "deploy")
    result = run_sweep(
        config,
        directory=context.home / "benchmarks" / f"b-{digest_value([context.run, context.digest])[:12]}",
        targets=openers,
        name=of_run.name,
        facts={
            "run": context.run,
            "service": deployed.get("service"),
            "recipe_digest": digest_value([s.digest for s in Plan.model_validate(of_run.plan).stages])[:16],
        },
        cwd=context.cwd,
        default_prompts=_prompts(context),
        on_event=_Told(context.emit),
    )
    _check(result, config)
    store.add_benchmark(result.model_dump(mode="json"))
    return Outputs(metrics=flat.metrics(result), report=_stage_report(result, config, context))


def _openers(config: Config, context: Context) -> dict[str, Opener]:
    found: dict[str, Opener] = {}
    for name in config.targets:
        opener = _deployed if name == config.deployed else _engine
        found[name] = partial(opener, config, context, name)
    for server in config.servers:
        found[server.name] = partial(_server, server)
    return found


def _server(server: ExternalServer) -> AbstractContextManager[Ready]:
    key = _secret(server.api_key) if server.api_key else None
    price = None if server.usd_per_hour is None else float(server.usd_per_hour)
    source = None if price is None else "the recipe"
    return targets.server(
        server.name, server.url, model=server.model, api_key=key, usd_per_hour=price, price_source=source
    )


def _secret(text: str) -> str:
    found = _SECRET.fullmatch(text)
    name = found["name"] if found else text
    value = os.environ.get(name)
    if not value:
        raise InputError(
            f"the environment variable {name} is not set where the benchmark runs",
            next_step=f"`orch down`, then `export {name}=...` and the same command again",
        )
    return value


@contextmanager
def _deployed(config: Config, context: Context, name: str) -> Iterator[Ready]:
    report, export = _report(context, "deploy"), _export(context, name)
    with targets.server(
        name,
        report["engine_url"],
        model=report["model"],
        request_fields=report.get("request_fields"),
        usd_per_hour=config.usd_per_hour,
        price_source=config.price_source,
        engine=report["engine"],
        engine_version=report["engine_version"],
        release=report["release"],
        quantization=export.get("quantization"),
    ) as ready:
        yield _with_args(ready, config.engine_args.get(name, {}))


@contextmanager
def _engine(config: Config, context: Context, name: str) -> Iterator[Ready]:
    """The export on its engine, for as long as it is measured. Raises EngineError when it does not start."""
    export, given = _export(context, name), config.engine_args.get(name, {})
    options = plugins.load(engines, export["engine"]).Options(**given)
    context.say(f"starting {name} on {export['engine']}")
    with (
        running.engine(
            export["engine"],
            Path(export["path"]),
            options,
            alias=f"bench-{name}",
            directory=context.directory,
            site=context.site,
        ) as served,
        targets.server(
            name,
            served.url,
            model=served.model,
            request_fields=served.fields,
            usd_per_hour=config.usd_per_hour,
            price_source=config.price_source,
            engine=export["engine"],
            engine_version=str(served.launch.installed),
            quantization=export["quantization"],
        ) as ready,
    ):
        yield _with_args(ready, given)


def _with_args(ready: Ready, given: Mapping[str, Any]) -> Ready:
    """What the server tells of its settings, and what it was started with."""
    target = ready.target.model_copy(update={"engine_args": {**ready.target.engine_args, **given}})
    return replace(ready, target=target)


def _report(context: Context, stage: str) -> Mapping[str, Any]:
    return context.inputs[stage].report if stage in context.inputs else {}


def _export(context: Context, name: str) -> Mapping[str, Any]:
    return next((made for made in _report(context, "export").get("targets", ()) if made["name"] == name), {})


def _prompts(context: Context) -> Sequence[Any] | None:
    """The held-out rows, for a workload that names nothing else."""
    rows = context.inputs["data"].artifacts.get("test_rows") if "data" in context.inputs else None
    return read_prompts(Path(rows)) if rows else None


class _Told:
    """Turns what a sweep tells into events of the run: at most one `progress` a second, a `level` for each cell."""

    def __init__(self, emit: Emit) -> None:
        self._emit, self._step, self._steps, self._told = emit, 0, None, 0.0

    def __call__(self, kind: str, /, **data: Any) -> None:
        if kind == "cell.started":
            self._step, self._steps = data["place"] - 1, data["total"]
        elif kind == "progress" and time.monotonic() - self._told >= _PROGRESS_EVERY_S:
            self._told = time.monotonic()
            self._emit("progress", **self._steps_of(), **_now(data["cell"], data["progress"]))
        elif kind == "cell.finished":
            self._step += 1
            self._emit("progress", **self._steps_of())
            self._emit("level", **_level(data["cell"]))
        elif kind == "cell.failed":
            cell: Cell = data["cell"]
            self._emit("log", message=f"{cell.target}, {cell.workload}, {_load(cell)} failed: {cell.cause}")
        elif kind == "log":
            self._emit("log", message=data["message"])

    def _steps_of(self) -> dict[str, int]:
        return {"step": self._step, "steps": self._steps} if self._steps else {"cells": self._step}


def _now(planned: Any, progress: Any) -> dict[str, Any]:
    rate = progress.completion_tokens / progress.elapsed_s if progress.elapsed_s > 0 else 0.0
    load = {"concurrency": planned.concurrency} if planned.concurrency else {"rate": f"{planned.rate or 0:g}"}
    return {"target": planned.target, **load, "requests": progress.ended, "tokens_per_s": rate}


def _level(cell: Cell) -> dict[str, Any]:
    """A cell as the report of a run and its events show it."""
    summary = cell.summary
    assert summary is not None, "a finished cell has one"
    spreads = {f"{name}_p95": spread.p95 for name, spread in summary.latencies.items()}
    rates = {"tokens_per_s": summary.output_tokens_per_s, "requests_per_s": summary.requests_per_s}
    where = {"target": cell.target, "workload": cell.workload, "load": _load(cell), "concurrency": cell.concurrency}
    return {**where, "errors": sum(summary.errors.values()), **spreads, **rates}


def _load(cell: Cell) -> str:
    return cell.load if cell.concurrency or cell.rate else "its own times"


def _check(result: Result, config: Config) -> None:
    for name in [None, config.deployed]:
        cells = [cell for cell in result.cells if name in (None, cell.target)]
        if cells and all(cell.state == "failed" for cell in cells):
            causes = "; ".join(dict.fromkeys(f"{cell.target}, {_load(cell)}: {cell.cause}" for cell in cells))
            raise EngineError(
                f"nothing of {name or 'the benchmark'} could be measured: {causes}",
                next_step="read the engine's log with `orch logs`, then `orch resume`",
            )


def _stage_report(result: Result, config: Config, context: Context) -> dict[str, Any]:
    """What the report of the run shows: the closed loops of its first target as levels, and where the whole lies."""
    main = result.target(config.deployed) if config.deployed in config.targets else result.targets[0]
    deployed = _report(context, "deploy")
    shown = {key: deployed.get(key) for key in ("release", "model")} if main.name == config.deployed else {}
    return {
        "target": main.name,
        "engine": main.engine,
        "engine_version": main.engine_version,
        **shown,
        "hardware": main.hardware or result.client_hardware,
        "result": {"id": result.id, "path": str(context.home / "benchmarks" / result.id)},
        "servers": [server.name for server in config.servers],
        "workload": result.workloads,
        "settings": result.settings,
        "failed": [f"{c.target}, {c.workload}, {_load(c)}: {c.cause}" for c in result.cells if c.state == "failed"],
        "levels": [_shown(cell) for cell in _closed(result, main.name)],
    }


def _closed(result: Result, target: str) -> list[Cell]:
    """The finished closed loops of its first workload, by concurrency."""
    mine = [cell for cell in result.cells if cell.target == target and cell.concurrency and cell.state == "done"]
    first = min((cell.order, cell.workload) for cell in mine)[1] if mine else ""
    return sorted((cell for cell in mine if cell.workload == first), key=lambda cell: cell.concurrency or 0)


def _shown(cell: Cell) -> dict[str, Any]:
    assert cell.summary is not None, "a finished cell has one"
    summary = cell.summary.model_dump(mode="json", exclude={"timeline", "engine"})
    for spread in summary["latencies"].values():
        del spread["quantiles"]
    return {"concurrency": cell.concurrency, **summary, "tokens_per_s": summary["output_tokens_per_s"]}
