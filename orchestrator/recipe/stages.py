"""Which stages a recipe has, in their order, and the configuration that each one reads."""

from orchestrator.config import Model
from orchestrator.recipe.recipe import Recipe
from orchestrator.stages import data, deploy, evaluate, export, prepare, promote

NEEDS: dict[str, tuple[str, ...]] = {
    "prepare": (),
    "data": ("prepare",),
    "train": ("prepare", "data"),
    "evaluate": ("prepare", "data", "train"),
    "export": ("prepare", "train"),
    "parity": ("prepare", "data", "train", "export"),
    "deploy": ("export",),
    "benchmark": ("data", "deploy"),
    "promote": ("evaluate", "parity", "deploy", "benchmark"),
}
"""The stages whose outputs a stage reads: its digest contains theirs."""


def stage_configs(recipe: Recipe) -> dict[str, Model]:
    """Stage name -> its configuration, in the order of execution."""
    found: dict[str, Model] = {
        "prepare": prepare.Config(
            base_model=recipe.base_model,
            revision=recipe.revision,
            datasets=recipe.datasets,
            test_datasets=recipe.test_datasets,
        )
    }
    if recipe.datasets:
        length = {"sequence_len": recipe.train.sequence_len} if recipe.train else {}
        found["data"] = data.Config(allow_leakage=recipe.allow_leakage, **length)
    if recipe.train:
        found["train"] = recipe.train
    if recipe.evaluate:
        found["evaluate"] = evaluate.Config(tasks=recipe.evaluate)
    if recipe.export:
        found["export"] = export.Config(targets=recipe.export)
    if recipe.export and recipe.test_datasets:
        found["parity"] = recipe.parity
    if recipe.serve:
        found |= _serving(recipe, recipe.serve)
    return found


def _serving(recipe: Recipe, serve: deploy.Serve) -> dict[str, Model]:
    engine = next((target.engine for target in recipe.export if target.name == serve.target), "")
    found: dict[str, Model] = {"deploy": deploy.Config(**serve.model_dump(), engine=engine)}
    if recipe.benchmark:
        found["benchmark"] = recipe.benchmark
    gates = [gate.model_dump() for gate in recipe.gates]
    return found | {"promote": promote.Config.model_validate({"service": serve.service, "gates": gates})}
