"""`orch bench run RECIPE`: servers that run already are measured right here; what must be deployed first goes through
the machinery of runs, up to the benchmark. Nothing is promoted.
"""

import contextlib
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from orchestrator.bench import flat
from orchestrator.bench.result import Result
from orchestrator.bench.targets import Opener, Ready, server
from orchestrator.cli import bench_after, bench_show, follow, show
from orchestrator.cli.bench_after import After
from orchestrator.cli.bench_results import Found
from orchestrator.cli.bench_sweep import INTERRUPTED
from orchestrator.clusters.load import load_cluster
from orchestrator.controller import gates, measuring, preflight, runs
from orchestrator.controller.planning import make_plan
from orchestrator.digests import digest_value
from orchestrator.errors import InputError
from orchestrator.planner.plan import Plan
from orchestrator.recipe.load import Loaded, load_recipe
from orchestrator.stages.benchmark import ExternalServer, Section
from orchestrator.store.store import Store

Sweep = Callable[..., tuple[Result, bool]]
"""As `bench_sweep.measured`."""


def run(path: Path, after: After, home: Path, sweep: Sweep, resume: str | None = None) -> int:
    """The exit code. Raises what the user is to read, a failed gate too."""
    loaded, store = load_recipe(path, [], home), Store(home)
    plan = measuring.up_to_benchmark(make_plan(loaded, load_cluster(None), store, Path.cwd()))
    names = [name for name in (plan.service, plan.recipe) if name]
    against = bench_after.before(after, home, names)
    section = loaded.recipe.benchmark
    assert section is not None, "the plan has a benchmark"
    if [stage.name for stage in plan.stages] != [measuring.STAGE]:
        if resume is not None:
            raise InputError(f"{path} deploys what it measures: that is a run", next_step="`orch resume RUN` goes on")
        return _deploying(loaded, plan, store, after, against)
    result, stopped = _servers(section, plan, home, sweep, after)
    bench_after.finish(result, home, after, against, stopped=stopped)
    if stopped:
        return INTERRUPTED
    gates.enforce(gates.judge(plan.gates, measuring.STAGE, flat.metrics(result)))
    return 0


def _servers(section: Section, plan: Plan, home: Path, sweep: Sweep, after: After) -> tuple[Result, bool]:
    openers: dict[str, Opener] = {each.name: partial(_opened, each, plan.path) for each in section.servers}
    facts = {"recipe_digest": digest_value([stage.digest for stage in plan.stages])[:16]}
    return sweep(section, openers, plan.recipe, home, bench_show.console(stderr=after.as_json), facts)


def _opened(found: ExternalServer, source: str) -> contextlib.AbstractContextManager[Ready]:
    price = None if found.usd_per_hour is None else float(found.usd_per_hour)
    key = _key(found.api_key) if found.api_key else None
    return server(found.name, found.url, model=found.model, api_key=key, usd_per_hour=price,
                  price_source=source if price is not None else None)  # fmt: skip


def _key(text: str) -> str:
    """Of the environment variable in `${NAME}`."""
    name = text.removeprefix("${").removesuffix("}")
    if not os.environ.get(name):
        raise InputError(f"the environment variable {name} is not set", next_step=f"`export {name}=...`")
    return os.environ[name]


def _deploying(loaded: Loaded, plan: Plan, store: Store, after: After, against: Found | None) -> int:
    preflight.check(loaded.recipe, plan, store.home, Path.cwd())
    name = runs.create(store, plan, [measuring.STAGE])
    with contextlib.redirect_stdout(sys.stderr) if after.as_json else contextlib.nullcontext():
        show.started(plan, name)
        runs.launch(store, name)
        code = follow.follow(store, name)
    kept = store.benchmarks(1, run=name)
    if kept and store.run(name).state in ("succeeded", "failed"):
        measuring.stop_candidate(store, plan)
        bench_after.finish(Result.model_validate(kept[0]), store.home, after, against)
    return code
