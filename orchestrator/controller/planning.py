"""Makes the plan of a recipe on a cluster: stages, digests, resources, reuse, and what stands in the way."""

import importlib.metadata
import inspect
import itertools
import os
import re
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from orchestrator import engines, plugins, stages
from orchestrator.catalog.catalog import load
from orchestrator.clusters.cluster import Cluster
from orchestrator.config import Model
from orchestrator.controller import asked, forecasting, targets
from orchestrator.controller.known import known
from orchestrator.controller.reuse import reusable
from orchestrator.digests import digest_path, digest_value
from orchestrator.errors import InputError
from orchestrator.planner.forecast import Acceptance, Forecast
from orchestrator.planner.plan import Gate, Plan, PlannedStage, Queueing, Resources
from orchestrator.recipe.load import Loaded
from orchestrator.recipe.recipe import Recipe
from orchestrator.recipe.stages import NEEDS, is_on, stage_configs
from orchestrator.stages import benchmark, deploy, prepare
from orchestrator.stages.base import Outputs, local_path
from orchestrator.store.store import Store

_PACKAGE = Path(stages.__file__).parent.parent


_BY_ACCELERATOR = ("export", "deploy", "benchmark")
"""Stages whose configuration, and so their digest and that of those after them, depends on the accelerator."""


def make_plan(
    loaded: Loaded,
    cluster: Cluster,
    store: Store,
    cwd: Path,
    *,
    accepted: Acceptance | None = None,
    forced: Collection[str] = (),
) -> Plan:
    """The plan; a pure function of its arguments, of the files that the recipe names, and of the catalog.

    `accepted`: who takes the risk of a licence that forbids this. `forced` stages, and all after the first of them, are
    predicted as if they had never run; `runs.create` makes them run. Raises InputError for a path of the recipe that
    does not exist, an accelerator that nobody knows, and a config.json that contradicts itself.
    """
    recipe = loaded.recipe
    _check_paths(recipe, cwd)
    configs = stage_configs(recipe)
    before = list(itertools.takewhile(lambda name: name not in _BY_ACCELERATOR, configs))
    planned: list[PlannedStage] = []
    for name in before:
        planned.append(_stage(name, configs[name], planned, recipe, cluster, cwd))
    _note_reuse(planned, store, forced)
    found = known(loaded, planned, cluster, load(store.home, cwd), store, cwd)
    slot = found.placement.slot
    accelerator, count = ((slot.pool or slot.kind), slot.count) if slot else (None, 0)
    configs = stage_configs(recipe, found.left_out)
    for name in list(configs)[len(before) :]:
        config = configs[name].model_copy(update=_placed(configs[name], recipe, cluster, accelerator, count))
        planned.append(_stage(name, config, planned, recipe, cluster, cwd))
    _note_reuse(planned, store, forced, start=len(before))
    planned = [_with_accelerators(stage, count) for stage in planned]
    predicted = forecasting.forecast(found, planned, accepted) if recipe.base_model else None
    unserved = targets.obstacles(found)
    obstacles = [*found.placement.obstacles, *(what for what, _ in unserved)]
    obstacles += _no_room(planned, cluster, accelerator, count)
    gates = [(gate, is_on(gate, found.left_out)) for gate in recipe.gates]
    return Plan(
        recipe=recipe.name,
        path=str(loaded.path),
        directory=str(cwd),
        cluster=cluster,
        accelerator=accelerator,
        stages=planned,
        gates=[Gate(**gate.model_dump()) for gate, skipped in gates if not skipped],
        skipped_gates=[Gate(**gate.model_dump()) for gate, skipped in gates if skipped],
        targets=targets.planned(found, planned, cluster, accelerator),
        service=recipe.serve.service if recipe.serve else None,
        queueing=_queueing(recipe),
        forecast=predicted,
        obstacles=[*obstacles, *_refusals(predicted)],
        refused=found.placement.refused or bool(unserved) or bool(_refusals(predicted)),
        advice="; ".join(
            part for part in (found.placement.advice, *(do for _, do in unserved), *_advice(predicted)) if part
        )
        or None,
    )


def _queueing(recipe: Recipe) -> Queueing:
    wanted, queue = recipe.resources, recipe.queue
    return Queueing(
        priority=recipe.priority,
        team=queue.team,
        spot=wanted.spot,
        prefer=wanted.prefer,
        deadline_s=queue.deadline,
        max_wait_s=queue.max_wait,
    )


def _refusals(found: Forecast | None) -> list[str]:
    """What stands in the way wherever the run is to be carried out."""
    if found is None:
        return []
    license = [found.license.obstacle] if found.license and found.license.obstacle else []
    return [*license, *(found.budget.judgement.obstacles if found.budget else [])]


def _advice(found: Forecast | None) -> list[str]:
    """What to change about a licence that forbids it, and about a budget."""
    advice = []
    if found and found.license and found.license.obstacle:
        advice.append('another model or use, or, at your own risk, --accept-license-risk "why"')
    if found and found.budget and found.budget.judgement.obstacles:
        advice.append("a cheaper layout, fewer epochs, or a larger budget, such as budget.max_cost_usd=100")
    return advice


def _placed(config: Model, recipe: Recipe, cluster: Cluster, accelerator: str | None, count: int) -> dict[str, Any]:
    """What the choice of the accelerator adds to the configuration of a stage that starts engines."""
    if isinstance(config, deploy.Config):
        return {"num_gpus": count, "engine_args": asked.on(config.engine, config.engine_args, count)}
    if not isinstance(config, benchmark.Config):
        return {}
    engine_of = {entry.name: entry.engine for entry in recipe.export}
    given = {name: asked.on(engine_of[name], args, count) for name, args in config.engine_args.items()}
    price, source = cluster.price(accelerator, count)
    return {"num_gpus": count, "engine_args": given, "usd_per_hour": price, "price_source": source}


def _no_room(planned: list[PlannedStage], cluster: Cluster, accelerator: str | None, count: int) -> list[str]:
    """A benchmark that starts engines of its own does so beside the deployed one."""
    names = [stage.name for stage in planned if stage.name == "deploy" or stage.resources.num_gpus]
    have = cluster.accelerators().get(accelerator or "", 0)
    if not {"deploy", "benchmark"} <= set(names) or have >= 2 * count:
        return []
    return [
        f"the benchmark starts engines beside the deployed one, which takes {accelerator}:{2 * count} on one node;"
        f" cluster {cluster.name!r} has {accelerator}:{have}"
    ]


def _check_paths(recipe: Recipe, cwd: Path) -> None:
    if recipe.base_model:
        prepare.check_exists(recipe.base_model, cwd, "base_model")
    missing = [name for name in _workload_files(recipe) if not local_path(name, cwd).exists()]
    if missing:
        raise InputError(f"benchmark: no file {missing[0]} in {cwd}")
    for name, datasets in (("datasets", recipe.datasets), ("test_datasets", recipe.test_datasets)):
        for dataset in datasets:
            prepare.check_exists(dataset, cwd, name)


def _stage(
    name: str, config: Model, before: list[PlannedStage], recipe: Recipe, cluster: Cluster, cwd: Path
) -> PlannedStage:
    module = plugins.load(stages, name)
    wanted: Resources = module.estimate(config)
    reads = {stage.name: stage.digest for stage in before if stage.name in NEEDS[name]}
    identity = {
        "stage": name,
        "config": _prepare_identity(recipe, cwd) if name == "prepare" else config.model_dump(mode="json"),
        **({"files": _asked_files(recipe, cwd)} if name == "benchmark" else {}),
        "reads": reads,
        "code": _code(module, config),
        "libraries": _libraries(module, config, cluster),
    }
    dumped = config.model_dump(mode="json")
    return PlannedStage(name=name, config=dumped, digest=digest_value(identity), resources=wanted)


def _with_accelerators(stage: PlannedStage, count: int) -> PlannedStage:
    """One for a stage whose worker computes on them: each worker is one process on one device, and with more of them in
    sight transformers would split every batch."""
    if not getattr(plugins.load(stages, stage.name), "ON_ACCELERATOR", False):
        return stage
    return stage.model_copy(update={"resources": stage.resources.model_copy(update={"num_gpus": min(count, 1)})})


def _prepare_identity(recipe: Recipe, cwd: Path) -> dict[str, Any]:
    """Contents, not paths: the same data under another name has been prepared before."""
    train = recipe.datasets[0] if recipe.datasets else None
    return {
        "base_model": prepare.identity(recipe.base_model, cwd, train) if recipe.base_model else None,
        "revision": recipe.revision,
        "datasets": [prepare.identity(dataset, cwd) for dataset in recipe.datasets],
        "test_datasets": [prepare.identity(dataset, cwd) for dataset in recipe.test_datasets],
    }


def _workload_files(recipe: Recipe) -> list[str]:
    workloads = recipe.benchmark.asked if recipe.benchmark else []
    return [name for workload in workloads for name in workload.files()]


def _asked_files(recipe: Recipe, cwd: Path) -> dict[str, str]:
    """Contents of what the workloads read, by the recipe's words for it."""
    return {name: digest_path(local_path(name, cwd))[0] for name in _workload_files(recipe)}


def _code(module: ModuleType, config: Model) -> dict[str, str]:
    """Digests of the files that do the stage's work: its module, its engines, and the workers of both."""
    used = [plugins.load(engines, name) for name in _engines(config)]
    workers = {name for each in (module, *used) for name in getattr(each, "WORKERS", ())}
    files = [Path(inspect.getfile(module)), *(_PACKAGE / "workers" / f"{name}.py" for name in workers)]
    files += [file for engine in used for file in _engine_files(Path(inspect.getfile(engine)))]
    return {os.path.relpath(file, _PACKAGE): digest_path(file)[0] for file in files}


def _libraries(module: ModuleType, config: Model, cluster: Cluster) -> dict[str, str | None]:
    """Versions of what does the stage's work: of the stage and of its engines, and of the engines' environments."""
    used = [plugins.load(engines, name) for name in _engines(config)]
    own = {library: _version(library) for each in (module, *used) for library in each.LIBRARIES}
    needed = [environment for engine in used for environment in engine.ENVIRONMENTS]
    return own | {
        one.name: cluster.images.get(one.name) or cluster.versions.get(one.name, one.version) for one in needed
    }


def _engine_files(module: Path) -> list[Path]:
    """An engine's module, and the private ones beside it that are named after it."""
    return [module, *module.parent.glob(f"_{module.stem}_*.py")]


def _engines(config: Model) -> set[str]:
    targets = getattr(config, "targets", [])
    named = {getattr(target, "engine", None) for target in targets} | {getattr(config, "engine", None)}
    return {name for name in named if name}


@lru_cache
def _version(library: str) -> str | None:
    """From the one line that has it: `importlib.metadata.version` parses the whole description, 2 ms a library."""
    try:
        found = importlib.metadata.distribution(library)
    except importlib.metadata.PackageNotFoundError:
        return None
    line = re.search(r"^Version: *(\S+)", found.read_text("METADATA") or "", re.MULTILINE)
    return line[1] if line else found.version


def _note_reuse(planned: list[PlannedStage], store: Store, forced: Collection[str], start: int = 0) -> None:
    for index, stage in list(enumerate(planned))[start:]:
        if any(before.name in forced for before in planned[: index + 1]):
            return
        made = store.finished_stage(stage.digest)
        if made is None:
            continue
        outputs = reusable(stage.name, Outputs.model_validate(made.outputs), store.home)
        if outputs is not None:
            planned[index] = stage.model_copy(update={"reused_from": made.run})
