"""Makes the plan of a recipe on a cluster: stages, digests, resources, reuse, and what stands in the way."""

import importlib.metadata
import inspect
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from orchestrator import engines, plugins, stages
from orchestrator.catalog.catalog import Catalog, load
from orchestrator.clusters.cluster import Cluster
from orchestrator.config import Model
from orchestrator.controller import asked, forecasting, placing
from orchestrator.controller.base_model import Base, base_model
from orchestrator.controller.reuse import reusable
from orchestrator.controller.stage_forecasts import Known
from orchestrator.digests import digest_path, digest_value
from orchestrator.errors import InputError
from orchestrator.planner.estimate import Unknown
from orchestrator.planner.forecast import Acceptance, Forecast
from orchestrator.planner.plan import Gate, Plan, PlannedStage, Resources
from orchestrator.recipe.load import Loaded
from orchestrator.recipe.recipe import Recipe
from orchestrator.recipe.stages import NEEDS, stage_configs
from orchestrator.stages import prepare
from orchestrator.stages.base import Outputs, local_path
from orchestrator.store.store import Store

_PACKAGE = Path(stages.__file__).parent.parent


_SOURCES = ("prepare", "data")
"""Stages whose results say more about the model and the rows than the recipe does."""


def make_plan(loaded: Loaded, cluster: Cluster, store: Store, cwd: Path, *, accepted: Acceptance | None = None) -> Plan:
    """The plan; a pure function of its arguments, of the files that the recipe names, and of the catalog.

    `accepted`: who takes the risk of a licence that forbids this. Raises InputError for a path of the recipe that does
    not exist, an accelerator that nobody knows, and a config.json that contradicts itself.
    """
    recipe = loaded.recipe
    _check_paths(recipe, cwd)
    configs = stage_configs(recipe)
    planned: list[PlannedStage] = []
    for name in (name for name in configs if name in _SOURCES):
        planned.append(_stage(name, configs[name], planned, recipe, cwd, 0, store))
    _note_reuse(planned, store)
    known = _known(loaded, planned, cluster, load(store.home, cwd), store, cwd)
    slot = known.placement.slot
    accelerator, count = ((slot.pool or slot.kind), slot.count) if slot else (None, 0)
    for name in (name for name in configs if name not in _SOURCES):
        config = configs[name].model_copy(update=_placed(name, cluster, accelerator, count))
        planned.append(_stage(name, config, planned, recipe, cwd, count, store))
    _note_reuse(planned, store)
    found = forecasting.forecast(known, planned, accepted) if recipe.base_model else None
    obstacles = [*known.placement.obstacles, *_no_room(planned, cluster, accelerator, count)]
    return Plan(
        recipe=recipe.name,
        path=str(loaded.path),
        directory=str(cwd),
        cluster=cluster,
        accelerator=accelerator,
        stages=planned,
        gates=[Gate(**gate.model_dump()) for gate in recipe.gates],
        service=recipe.serve.service if recipe.serve else None,
        forecast=found,
        obstacles=[*obstacles, *_refusals(found)],
        refused=known.placement.refused or bool(_refusals(found)),
        advice="; ".join(dict.fromkeys(part for part in (known.placement.advice, *_advice(found)) if part)) or None,
    )


def _known(
    loaded: Loaded, planned: list[PlannedStage], cluster: Cluster, catalog: Catalog, store: Store, cwd: Path
) -> Known:
    """What can be said about the model, the rows and the accelerators before anything runs."""
    recipe = loaded.recipe
    by_name = {stage.name: stage for stage in planned}
    base = Base(Unknown(reason="unknown: the recipe has no base model"), "", False)
    if recipe.base_model:
        base = base_model(recipe.base_model, by_name.get("prepare"), catalog, store, cwd)
    data = by_name.get("data")
    rows = asked.rows(recipe.datasets, data, store, cwd)
    held_out = asked.rows(recipe.test_datasets, data, store, cwd, "test")
    exports = asked.targets(recipe)
    prompt = None if isinstance(held_out, Unknown) else max(1, round(held_out.tokens.value / held_out.number))
    asks = asked.asks(recipe, prompt)
    choices = placing.slots(loaded, cluster, catalog)
    busiest = max(asks, key=lambda ask: ask.concurrency or 0).request
    most = max((ask.concurrency or 8 for ask in asks), default=8)
    request = busiest.model_copy(update={"concurrency": most})
    placement = placing.place(recipe, choices, cluster, base.facts, rows, exports, request)
    return Known(recipe, base, rows, held_out, exports, asks, placement, cluster, catalog, store)


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


def _placed(name: str, cluster: Cluster, accelerator: str | None, count: int) -> dict[str, Any]:
    """What the choice of the accelerator adds to the configuration of a stage that starts engines."""
    if name not in ("deploy", "benchmark"):
        return {}
    price, source = cluster.price(accelerator, count) if name == "benchmark" else (None, None)
    return {"num_gpus": count} | ({"usd_per_hour": price, "price_source": source} if name == "benchmark" else {})


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
    name: str, config: Model, before: list[PlannedStage], recipe: Recipe, cwd: Path, num_gpus: int, store: Store
) -> PlannedStage:
    module = plugins.load(stages, name)
    wanted: Resources = module.estimate(config)
    if getattr(module, "ON_ACCELERATOR", False):
        # each worker is one process on one device; with more of them in sight, transformers would split every batch
        wanted = wanted.model_copy(update={"num_gpus": min(num_gpus, 1)})
    reads = {stage.name: stage.digest for stage in before if stage.name in NEEDS[name]}
    identity = {
        "stage": name,
        "config": _prepare_identity(recipe, cwd) if name == "prepare" else config.model_dump(mode="json"),
        **({"files": _asked_files(recipe, cwd)} if name == "benchmark" else {}),
        "reads": reads,
        "code": _code(module, config),
        "libraries": {library: _version(library) for library in module.LIBRARIES},
    }
    dumped = config.model_dump(mode="json")
    return PlannedStage(name=name, config=dumped, digest=digest_value(identity), resources=wanted)


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
    """Digests of the files that do the stage's work: its module, its workers, its engines."""
    workers = [_PACKAGE / "workers" / f"{name}.py" for name in getattr(module, "WORKERS", ())]
    files = [Path(inspect.getfile(module)), *workers]
    files += [Path(inspect.getfile(plugins.load(engines, name))) for name in _engines(config)]
    return {str(file.relative_to(_PACKAGE)): digest_path(file)[0] for file in files}


def _engines(config: Model) -> set[str]:
    targets = getattr(config, "targets", [])
    named = {getattr(target, "engine", None) for target in targets} | {getattr(config, "engine", None)}
    return {name for name in named if name}


@lru_cache
def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _note_reuse(planned: list[PlannedStage], store: Store) -> None:
    for index, stage in enumerate(planned):
        made = store.finished_stage(stage.digest)
        if made is None:
            continue
        outputs = reusable(stage.name, Outputs.model_validate(made.outputs), store.home)
        if outputs is not None:
            planned[index] = stage.model_copy(update={"reused_from": made.run})
