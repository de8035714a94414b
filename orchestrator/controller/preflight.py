"""What can be known to be wrong before anything starts: rows, prompts, keys, the base model, the port, the disk."""

import shutil
from pathlib import Path

from orchestrator.clusters import storage
from orchestrator.errors import InputError, NotAllowedError
from orchestrator.planner.plan import Plan
from orchestrator.plugins import nearest
from orchestrator.recipe.recipe import Recipe
from orchestrator.serving import gateway
from orchestrator.stages import benchmark, data, train
from orchestrator.stages.base import local_path
from orchestrator.stages.prepare import Dataset
from orchestrator.units import Bytes

HEADROOM_BYTES = 200_000_000
"""Free space without which no run starts: the store, logs and Ray's own files need some, whatever the stages need."""


def check(recipe: Recipe, plan: Plan, home: Path, cwd: Path) -> None:
    """Raises InputError or NotAllowedError with the first thing that would make the run fail later."""
    if plan.obstacles:
        raise NotAllowedError(
            "; ".join(plan.obstacles),
            next_step=plan.advice or "choose a cluster that has it: `orch run RECIPE -c clusters/h100x8.yaml`",
        )
    _quota(plan)
    if plan.cluster.storage:
        storage.check_writable(plan.cluster.storage)
    _rows(recipe, cwd)
    if recipe.train and recipe.base_model and recipe.base_model.path and not recipe.base_model.prepare:
        folder = local_path(recipe.base_model.path, cwd)
        if folder.exists():
            train.check_base_model(folder, recipe.train)
    if recipe.benchmark and not _reused(plan, "benchmark"):
        benchmark.check(recipe.benchmark, cwd)
    if recipe.serve and not _reused(plan, "deploy"):
        gateway.check_port(recipe.serve.port, home)
    _disk(home)


def _quota(plan: Plan) -> None:
    """A run that its team could never hold would wait for ever."""
    team, quotas = plan.queueing.team, plan.cluster.quotas
    if not team or not quotas:
        return
    if team not in quotas:
        raise InputError(
            f"queue.team: cluster {plan.cluster.name!r} has no quota for a team {team!r}; {nearest(team, list(quotas))}"
        )
    quota, needs = quotas[team], max((stage.resources.num_gpus for stage in plan.stages), default=0)
    if quota.borrow is not None and needs > quota.gpus + quota.borrow:
        raise NotAllowedError(
            f"the run needs {needs:g} accelerators at once, team {team!r} may hold {quota.gpus:g}"
            f" and borrow {quota.borrow:g} on cluster {plan.cluster.name!r}",
            next_step="a smaller layout, or a larger quota in the cluster's file",
        )


def _rows(recipe: Recipe, cwd: Path) -> None:
    """Of files that exist already; what a command or the hub brings is checked by the data stage."""
    local = [_file(datasets, cwd) for datasets in (recipe.datasets, recipe.test_datasets)]
    if local[0]:
        data.check_files(local[0], local[1], allow_leakage=recipe.allow_leakage)
    elif local[1] and not local[1].is_dir():
        data.check_rows(local[1])


def _file(datasets: list[Dataset], cwd: Path) -> Path | None:
    for dataset in datasets:
        if dataset.path and not dataset.prepare and local_path(dataset.path, cwd).exists():
            return local_path(dataset.path, cwd)
    return None


def _disk(home: Path) -> None:
    free = shutil.disk_usage(home).free
    if free < HEADROOM_BYTES:
        raise InputError(
            f"{home} has {Bytes(free)} free, the run needs at least {Bytes(HEADROOM_BYTES)}",
            next_step="free some space, or set ORCH_HOME to a folder on a larger disk",
        )


def _reused(plan: Plan, name: str) -> bool:
    stage = plan.stage(name)
    return stage is not None and stage.reused_from is not None
