"""Which accelerators a plan takes: the best of those that the recipe would take, the cluster has, and it fits on."""

from collections.abc import Sequence
from typing import NamedTuple

from orchestrator.catalog.catalog import Catalog
from orchestrator.catalog.gpus import Gpu
from orchestrator.catalog.models import ModelFacts
from orchestrator.clusters.cluster import Cluster
from orchestrator.controller import asked, refusals
from orchestrator.controller.asked import Target
from orchestrator.controller.refusals import Reason
from orchestrator.errors import InputError, RecipeError
from orchestrator.planner import layouts
from orchestrator.planner.estimate import Estimate, Unknown
from orchestrator.planner.forecast import Layout
from orchestrator.planner.layouts import COUNTS, Slot
from orchestrator.planner.money.prices import PriceRange, market
from orchestrator.planner.serving.serving import Serving
from orchestrator.planner.training.finetune import FineTune
from orchestrator.recipe.load import Loaded
from orchestrator.recipe.recipe import Recipe
from orchestrator.validation import origin

MOST_TRIED = 12
"""Slots on which other number formats are tried; of `any`, only on what the cluster has."""
CLUSTER = "cluster"
"""Term of a price that the cluster's file has."""


Training = tuple[FineTune | Unknown | None, Estimate | Unknown | None]
"""The fine-tune and its tokens; None: nothing is trained."""


class Placement(NamedTuple):
    """What was chosen, and from what."""

    slot: Slot | None
    """None: no accelerator was asked for, or the cluster has none of them."""
    basis: Slot | None
    """What the forecast is for: the chosen one, or else the one that would be; None: a CPU."""
    layouts: list[Layout]
    obstacles: list[str]
    refused: bool
    """Whether it fits on none of the accelerators, whoever has them."""
    advice: str | None


def slots(loaded: Loaded, cluster: Cluster, catalog: Catalog) -> list[Slot]:
    """What the recipe would take. Raises RecipeError for a kind that neither the catalog nor the cluster knows."""
    wanted, have = loaded.recipe.resources, cluster.accelerators()
    found = [_slot(kind, count, cluster, catalog) for kind, count in wanted.choices()]
    for slot in found:
        if slot.gpu is None and slot.pool is None:
            raise _unknown(loaded, wanted.accelerators.index(slot.name), slot.kind, catalog)
    if wanted.any:
        kinds = dict.fromkeys([*have, *(gpu.kind for gpu in catalog.gpus if catalog.gpu_prices(gpu))])
        found += [_slot(kind, count, cluster, catalog) for kind in kinds for count in COUNTS]
    return list({slot.name: slot for slot in reversed(found)}.values())[::-1]


def _written(recipe: Recipe) -> list[str]:
    return [f"{kind}:{count}" for kind, count in recipe.resources.choices()]


def place(
    recipe: Recipe,
    choices: Sequence[Slot],
    cluster: Cluster,
    base: ModelFacts | Unknown,
    training: Training,
    exports: Sequence[Target],
    request: layouts.Request,
) -> Placement:
    """Lays out training and every target on each slot, and chooses."""
    prefer = recipe.resources.prefer
    found = _laid_out(choices, base, training, exports, request)
    ranked = layouts.ranked(found, prefer)
    reasons = {slot.name: refusals.reasons(slot, found, exports, cluster.images) for slot in choices}
    available = [slot for slot in choices if slot.available]
    good = _in_order([slot for slot in available if not reasons[slot.name]], ranked, recipe)
    chosen = good[0] if good else available[0] if available else None
    refused = bool(choices) and all(reasons.values())
    would_do = _in_order([slot for slot in choices if not reasons[slot.name]], ranked, recipe)
    return Placement(
        slot=chosen,
        basis=chosen or next(iter([*would_do, *choices]), None),
        layouts=[_marked(layout, chosen if good else None) for layout in ranked],
        obstacles=_obstacles(recipe, choices, cluster, reasons, bool(good), refused),
        refused=refused,
        advice=_advice(choices, reasons, found, refused) if choices and not good else None,
    )


def _laid_out(
    choices: Sequence[Slot],
    base: ModelFacts | Unknown,
    training: Training,
    exports: Sequence[Target],
    request: layouts.Request,
) -> list[Layout]:
    if isinstance(base, Unknown):
        return []
    found: list[Layout] = []
    tune, tokens = training
    if isinstance(tune, FineTune) and tokens is not None:
        found += layouts.training(base, tune, tokens, choices, asked.remedy)
    for export in exports:
        if isinstance(export.serving, Serving):
            tried = choices if len(choices) <= MOST_TRIED else [slot for slot in choices if slot.available]
            rest = [slot for slot in choices if slot not in tried]
            found += layouts.serving(export.name, base, export.serving, tried, request, export.others)
            found += layouts.serving(export.name, base, export.serving, rest, request)
    return found


def _in_order(good: list[Slot], ranked: Sequence[Layout], recipe: Recipe) -> list[Slot]:
    """By the best layout of training, or else of the target that is served."""
    trained = any(layout.purpose == "train" for layout in ranked)
    main = "train" if trained else recipe.serve.target if recipe.serve else None
    able = [layout for layout in ranked if layout.executable and not layout.alternative]
    order = [layout.slot for layout in able if layout.purpose == (main or layout.purpose)]
    return sorted(good, key=lambda slot: order.index(slot.name) if slot.name in order else len(order))


def _marked(layout: Layout, chosen: Slot | None) -> Layout:
    able = layout.executable and not layout.alternative and not layout.refused
    mine = able and chosen is not None and layout.slot == chosen.name
    return layout.model_copy(update={"chosen": True}) if mine else layout


def _obstacles(
    recipe: Recipe,
    choices: Sequence[Slot],
    cluster: Cluster,
    reasons: dict[str, list[Reason]],
    good: bool,
    refused: bool,
) -> list[str]:
    if good or not choices:
        return []
    available = [slot for slot in choices if slot.available]
    missing = [] if available else [_missing(recipe, cluster)]
    shown = available or (choices if refused else [])
    why = list(dict.fromkeys(reason for slot in shown for reason in reasons[slot.name]))
    misfits = _listed([reason.text for reason in why if reason.target is None])
    unserved = _listed([reason.text for reason in why if reason.target])
    return [*missing, *([unserved] if unserved else []), *([f"it does not fit: {misfits}"] if misfits else [])]


def _listed(texts: Sequence[str]) -> str:
    """The first four."""
    more = f" (and {len(texts) - 4} more)" if len(texts) > 4 else ""
    return "; ".join(texts[:4]) + more


def _missing(recipe: Recipe, cluster: Cluster) -> str:
    wanted = "an accelerator" if recipe.resources.any else " or ".join(_written(recipe))
    found = ", ".join(f"{kind}:{count}" for kind, count in cluster.accelerators().items()) or "no accelerator"
    return f"the recipe needs {wanted} on one node; cluster {cluster.name!r} has {found}"


def _advice(
    choices: Sequence[Slot], reasons: dict[str, list[Reason]], found: Sequence[Layout], refused: bool
) -> str | None:
    unserved = next(filter(None, ([reason for reason in reasons[slot.name] if reason.target] for slot in choices)), [])
    named = {reason.target for reason in unserved}
    fitting = next((layout.remedy for layout in found if layout.remedy and layout.purpose not in named), None)
    remedies = [fitting, *(reason.remedy for reason in unserved)]
    remedy = "; ".join(text for text in remedies if text)
    if refused:
        return remedy or "a smaller model, a narrower quantization, or `resources.accelerators: any` to see what fits"
    others = [slot.name for slot in choices if not slot.available and not reasons[slot.name]]
    if any(slot.available for slot in choices):
        elsewhere = f"a cluster with {' or '.join(others[:3])}" if others else ""
        return " or ".join(part for part in [remedy, elsewhere] if part)
    return None


def _slot(kind: str, count: int, cluster: Cluster, catalog: Catalog) -> Slot:
    gpu, have = catalog.find_gpu(kind), cluster.accelerators()
    pool = next((word for word in have if word == kind or (gpu and catalog.find_gpu(word) == gpu)), None)
    return Slot(
        kind=kind,
        count=count,
        gpu=gpu,
        price=_price(pool, gpu, count, cluster, catalog),
        available=pool is not None and have[pool] >= count,
        pool=pool,
    )


def _price(pool: str | None, gpu: Gpu | None, count: int, cluster: Cluster, catalog: Catalog) -> PriceRange | Unknown:
    """The cluster's own, else the market's for machines on demand."""
    if pool is not None:
        price, source = cluster.price(pool, count)
        if price is not None:
            each = price / count
            return PriceRange(
                term=CLUSTER, low=each, middle=each, high=each, providers=[cluster.name], source=source or cluster.name
            )
    if gpu is None:
        return Unknown(reason="unknown: the catalog has no price of a GPU that it does not know")
    return market(catalog.gpu_prices(gpu), "on-demand")


def _unknown(loaded: Loaded, index: int, kind: str, catalog: Catalog) -> InputError:
    where = origin(loaded.document, ("resources", "accelerators", index))
    try:
        catalog.gpu(kind)
    except InputError as error:
        return RecipeError(
            f"1 problem in {loaded.path}\n  {where}: resources.accelerators.{index}: {error.message}",
            next_step=error.next_step,
        )
    raise AssertionError("the catalog was asked for it before")
