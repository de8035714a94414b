"""Which stages a recipe has, in their order, and the configuration that each one reads."""

from collections.abc import Collection, Sequence
from typing import Any

from pydantic import ValidationError

from orchestrator import engines, plugins
from orchestrator.config import Model
from orchestrator.errors import InputError
from orchestrator.planner.plan import Gate
from orchestrator.recipe.recipe import Recipe
from orchestrator.stages import benchmark, data, deploy, evaluate, export, parity, prepare, promote

NEEDS: dict[str, tuple[str, ...]] = {
    "prepare": (),
    "data": ("prepare",),
    "train": ("prepare", "data"),
    "evaluate": ("prepare", "data", "train"),
    "export": ("prepare", "data", "train"),
    "parity": ("prepare", "data", "train", "export"),
    "deploy": ("export",),
    "benchmark": ("data", "export", "deploy"),
    "promote": ("evaluate", "parity", "deploy", "benchmark"),
}
"""The stages whose outputs a stage reads: its digest contains theirs."""
_BY_TARGET = ("export", "parity", "benchmark")
"""Stages whose metrics begin with the name of a target."""


def stage_configs(recipe: Recipe, left_out: Collection[str] = ()) -> dict[str, Model]:
    """Stage name -> its configuration, in the order of execution; `left_out` targets are in none of them."""
    found: dict[str, Model] = {}
    if recipe.base_model:
        found["prepare"] = prepare.Config(
            base_model=recipe.base_model,
            revision=recipe.revision,
            datasets=recipe.datasets,
            test_datasets=recipe.test_datasets,
        )
    if recipe.datasets:
        length = {"sequence_len": recipe.train.sequence_len} if recipe.train else {}
        found["data"] = data.Config(allow_leakage=recipe.allow_leakage, **length)
    if recipe.train:
        found["train"] = recipe.train
    if recipe.evaluate:
        found["evaluate"] = evaluate.Config(tasks=recipe.evaluate)
    if made := [entry.target for entry in recipe.export if entry.name not in left_out]:
        found["export"] = export.Config(targets=made)
    if made and recipe.test_datasets:
        found["parity"] = _parity(recipe, made)
    if recipe.serve:
        engine = next((target.engine for target in recipe.export if target.name == recipe.serve.target), "")
        found["deploy"] = deploy.Config(**recipe.serve.model_dump(), engine=engine)
    if recipe.benchmark and (measured := _benchmark(recipe, recipe.benchmark, left_out)):
        found["benchmark"] = measured
    if recipe.serve:
        gates = [gate.model_dump() for gate in recipe.gates if not is_on(gate, left_out)]
        found["promote"] = promote.Config.model_validate({"service": recipe.serve.service, "gates": gates})
    return found


def is_on(gate: Gate, targets: Collection[str]) -> bool:
    """Whether the gate judges one of these export targets."""
    return gate.stage in _BY_TARGET and gate.metric.partition(".")[0] in targets


def _parity(recipe: Recipe, targets: Sequence[export.Target]) -> parity.Config:
    """The section, with the context that each target is served with and the first task that answers are scored by."""
    scored = [task.task for task in recipe.evaluate if task.task in parity.TASKS]
    given = _alike(recipe) | (recipe.benchmark.engine_args if recipe.benchmark else {})
    contexts = {target.name: _context(target.engine, given.get(target.name, {})) for target in targets}
    return parity.Config.model_validate(
        recipe.parity.model_dump() | {"contexts": contexts} | ({"task": scored[0]} if scored else {})
    )


def _alike(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """By target: the options of `serve`, for all whose engine is the one that serves."""
    serve, engines_of = recipe.serve, {target.name: target.engine for target in recipe.export}
    served = engines_of.get(serve.target) if serve else None
    return {name: serve.engine_args for name, engine in engines_of.items() if serve and engine == served}


def _context(engine: str, given: dict[str, Any]) -> int | None:
    """Tokens that one request gets; None: as many as the model has, or options that `checks` refuses."""
    try:
        module = plugins.load(engines, engine)
        options: Model = module.Options(**given)
    except (InputError, ValidationError):
        return None
    planned = module.planned(options) if hasattr(module, "planned") else options.model_dump()
    tokens = planned.get("max_model_len")
    return int(tokens) if tokens else None


def _benchmark(recipe: Recipe, section: benchmark.Section, left_out: Collection[str]) -> benchmark.Config | None:
    """The section, with the targets that it stands for and the options of their engines; None: nothing is left."""
    serve, alike = recipe.serve, _alike(recipe)
    default = [serve.target] if serve else [target.name for target in recipe.export]
    targets = [name for name in section.targets or default if name not in left_out]
    if not targets and not section.servers:
        return None
    arguments = {name: {**alike, **section.engine_args}.get(name, {}) for name in targets}
    return benchmark.Config.model_validate(
        section.model_dump(exclude_unset=True)
        | {"targets": targets, "engine_args": arguments, "deployed": serve.target if serve else None}
    )
