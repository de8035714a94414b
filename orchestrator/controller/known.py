"""What can be said about a recipe's model, rows and accelerators before anything runs: what a forecast is made from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from orchestrator.catalog.catalog import Catalog
from orchestrator.catalog.gpus import Gpu
from orchestrator.clusters.cluster import Cluster
from orchestrator.controller import asked, placing, refusals, servability
from orchestrator.controller.asked import Ask, Rows, Target
from orchestrator.controller.base_model import Base, base_model
from orchestrator.controller.placing import Placement
from orchestrator.planner.estimate import Unknown
from orchestrator.planner.plan import PlannedStage
from orchestrator.planner.training.finetune import FineTune
from orchestrator.recipe.load import Loaded
from orchestrator.recipe.recipe import Recipe
from orchestrator.store.store import Store
from orchestrator.validation import refused


class Known(NamedTuple):
    """What a forecast is made from."""

    recipe: Recipe
    base: Base
    rows: Rows | Unknown
    """Of training."""
    held_out: Rows | Unknown
    tune: FineTune | Unknown | None
    """None: nothing is trained, or it has been."""
    targets: Sequence[Target]
    """Every export of the recipe."""
    refused: Mapping[str, str]
    """Those that cannot be served where the plan runs -> why."""
    warnings: Sequence[str]
    """What to mind about serving them."""
    asks: Sequence[Ask]
    placement: Placement
    cluster: Cluster
    catalog: Catalog
    store: Store

    @property
    def left_out(self) -> list[str]:
        """Targets that the run goes on without."""
        return [export.name for export in self.targets if export.name in self.refused and not export.required]

    @property
    def exports(self) -> list[Target]:
        """Targets that the run makes."""
        return [export for export in self.targets if export.name not in self.left_out]

    @property
    def gpu(self) -> Gpu | Unknown:
        """The accelerator that the forecast is for."""
        slot = self.placement.basis
        if slot is None:
            return Unknown(reason="unknown: the catalog has no speed of a CPU")
        return slot.gpu or Unknown(reason=f"unknown: the catalog has no {slot.kind}")


def known(
    loaded: Loaded, planned: Sequence[PlannedStage], cluster: Cluster, catalog: Catalog, store: Store, cwd: Path
) -> Known:
    """From the stages that do not depend on the accelerator, which this chooses. Raises InputError as `make_plan`, and
    RecipeError for targets that could not load or answer what the recipe makes of this base model."""
    recipe = loaded.recipe
    stages = {stage.name: stage for stage in planned}
    base = Base(Unknown(reason="unknown: the recipe has no base model"), "", False)
    if recipe.base_model:
        base = base_model(recipe.base_model, stages.get("prepare"), catalog, store, cwd)
    rows = asked.rows(recipe.datasets, stages.get("data"), store, cwd)
    held_out = asked.rows(recipe.test_datasets, stages.get("data"), store, cwd, "test")
    trained = "train" not in stages or stages["train"].reused_from is not None
    tune = None if trained else asked.fine_tune(recipe, base.facts, rows)
    targets = asked.targets(recipe)
    lint = servability.check(recipe, base, targets, rows)
    if lint.problems:
        raise refused(loaded.document, str(loaded.path), lint.problems)
    prompt = None if isinstance(held_out, Unknown) else max(1, round(held_out.tokens.value / held_out.number))
    asks = asked.asks(recipe, prompt)
    busiest = max(asks, key=lambda ask: ask.concurrency or 0)
    request = busiest.request.model_copy(update={"concurrency": busiest.concurrency or 8})
    choices = placing.slots(loaded, cluster, catalog)
    tokens = asked.train_tokens(recipe.train, rows) if recipe.train else None
    placement = placing.place(recipe, choices, cluster, base.facts, (tune, tokens), targets, request)
    unserved = {target.name: why for target in targets if (why := _unserved(target, placement, cluster))}
    return Known(
        recipe, base, rows, held_out, tune, targets, unserved, lint.warnings, asks, placement, cluster, catalog, store
    )


def _unserved(target: Target, placement: Placement, cluster: Cluster) -> str | None:
    """Why it cannot be served on what the plan takes, or on this machine's CPU where it takes none."""
    slot = placement.basis
    if slot is None:
        return refusals.unserved(target, None, cluster.images)
    unserved = refusals.unserved(target, slot.gpu, cluster.images) if slot.gpu else None
    return unserved or refusals.crowded(target, slot) or refusals.misfit(target.name, slot, placement.layouts)
