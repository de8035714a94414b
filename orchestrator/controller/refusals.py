"""Why an accelerator will not do: an engine does not serve a target there, or what is to run there does not fit."""

import shutil
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from orchestrator import engines, plugins
from orchestrator.catalog.gpus import Gpu
from orchestrator.controller.asked import Target
from orchestrator.environments.environment import kind_of
from orchestrator.planner.forecast import Layout
from orchestrator.planner.layouts import Slot
from orchestrator.planner.serving.serving import Serving


class Reason(NamedTuple):
    """Why a slot will not do."""

    text: str
    target: str | None = None
    """The one that is not served there; None: something does not fit."""
    remedy: str | None = None
    """What to change about it."""


def reasons(slot: Slot, found: Sequence[Layout], exports: Sequence[Target], images: Mapping[str, str]) -> list[Reason]:
    """Why training, or a target that the run needs, cannot be carried out on the slot; empty: all can.

    `images` are the cluster's, by the name of the environment.
    """
    needed = [export for export in exports if export.required]
    unserved_ = {export.name: reason for export in needed if (reason := _unserved(export, slot, images))}
    fitting = ("train", *(export.name for export in needed if export.name not in unserved_))
    return [*unserved_.values(), *(reason for name in fitting if (reason := _misfit(name, slot, found)))]


def unserved(export: Target, gpu: Gpu | None, images: Mapping[str, str]) -> str | None:
    """Why the engine does not serve this weight format on the GPU, or on this machine's CPU; None: it does."""
    module = plugins.load(engines, export.engine)
    support = module.supports(export.quantization, gpu)
    return _no_environment(module, gpu, images) if support.ok else str(support.reason)


def instead(export: Target, gpu: Gpu | None) -> str:
    """What to change about a target that is not served there; another format helps where this one is the trouble."""
    module = plugins.load(engines, export.engine)
    served = [name for name in module.QUANTIZATIONS if module.supports(name, gpu).ok]
    format_is_wrong = served and not module.supports(export.quantization, gpu).ok
    other = f"quantization {' or '.join(served[:4])}" if format_is_wrong else "another engine"
    return f"{other} for {export.name}, or `required: false` to go on without it"


def crowded(export: Target, slot: Slot) -> str | None:
    """Why the slot has too few GPUs for the options of the engine; None: it has enough."""
    asked = export.serving.gpus if export.started and isinstance(export.serving, Serving) else 1
    return f"its engine_args ask for {asked} GPUs" if asked > slot.count else None


def misfit(purpose: str, slot: Slot, found: Sequence[Layout]) -> str | None:
    """Why nothing that can be carried out fits on the slot, for training or for a target; None: something does."""
    mine = [one for one in found if (one.purpose, one.slot) == (purpose, slot.name)]
    able = [way for way in mine if way.executable and not way.alternative]
    return able[0].refused if able and all(way.refused for way in able) else None


def _no_environment(module: Any, gpu: Gpu | None, images: Mapping[str, str]) -> str | None:
    """Why what the engine needs cannot be had for that kind of accelerator: not installed, not found on PATH."""
    needed, kind = next(iter(module.ENVIRONMENTS), None), kind_of(gpu.kind if gpu else None)
    if needed is None or kind in needed.kinds or needed.name in images or shutil.which(needed.program or ""):
        return None
    why, image = needed.refusals.get(kind, f"{needed} cannot be installed for {kind}"), needed.images.get(kind)
    named = f"{needed.name}: {image.format(version=needed.version)}" if image else ""
    return f"{why}; name its image in the cluster file, `images: {{{named}}}`" if image else str(why)


def _unserved(export: Target, slot: Slot, images: Mapping[str, str]) -> Reason | None:
    where = f"{export.name} cannot be served on {slot.name}"
    if slot.gpu and (why := unserved(export, slot.gpu, images)):
        return Reason(f"{where}: {why}", export.name, instead(export, slot.gpu))
    if why := crowded(export, slot):
        return Reason(f"{where}: {why}", export.name, "as many accelerators as the engine_args ask for, or fewer there")
    return None


def _misfit(purpose: str, slot: Slot, found: Sequence[Layout]) -> Reason | None:
    what, why = "training" if purpose == "train" else f"serving {purpose}", misfit(purpose, slot, found)
    return Reason(f"{what} on {slot.name}{' ' if why.startswith('needs ') else ': '}{why}") if why else None
