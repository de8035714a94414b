"""Which models fit a GPU for one kind of fine-tune: the question before a model is chosen."""

from collections.abc import Iterable
from typing import Literal

from orchestrator.catalog.gpus import Gpu
from orchestrator.catalog.models import ModelFacts
from orchestrator.catalog.parameters import Parameters, parameters
from orchestrator.config import Model
from orchestrator.errors import InputError
from orchestrator.planner.estimate import Unknown
from orchestrator.planner.training.finetune import FineTune
from orchestrator.planner.training.memory import memory

Verdict = Literal["fits", "tight", "does not fit", "unknown"]
ORDER: tuple[Verdict, ...] = ("fits", "tight", "unknown", "does not fit")


class Fit(Model):
    """One model on one GPU."""

    model: str
    """Its id."""
    parameters: int | None
    """Counted, else as published; None: unknown."""
    verdict: Verdict
    """fits: the whole interval does; tight: the middle does, the upper end does not."""
    needed: float | None
    """Bytes at the peak, as predicted; None: unknown."""
    low: float | None
    """Lower end; of an unknown one, what is certain."""
    high: float | None
    """Upper end."""
    visible: float
    """Bytes that the GPU shows."""
    reason: str | None = None
    """Why it is unknown or impossible."""


def fits(models: Iterable[ModelFacts], tune: FineTune, gpu: Gpu) -> list[Fit]:
    """A verdict for each, those that fit first, the largest of them on top."""
    found = [fit(model, tune, gpu) for model in models]
    return sorted(found, key=lambda one: (ORDER.index(one.verdict), -(one.parameters or 0), one.model))


def fit(model: ModelFacts, tune: FineTune, gpu: Gpu) -> Fit:
    """The verdict on one model."""
    visible, counted = float(gpu.memory_visible), parameters(model)
    size = counted.total if isinstance(counted, Parameters) else model.published_parameters
    common = {"model": model.id, "parameters": size, "visible": visible}
    try:
        found = memory(model, tune, gpu)
    except InputError as error:  # such as a module that this architecture does not have
        return Fit(verdict="unknown", needed=None, low=None, high=None, reason=f"unknown: {error.message}", **common)
    if isinstance(found, Unknown):
        verdict: Verdict = "does not fit" if found.low is not None and found.low > visible else "unknown"
        return Fit(verdict=verdict, needed=None, low=found.low, high=found.high, reason=found.reason, **common)
    verdict = "does not fit" if found.value > visible else "fits" if found.high <= visible else "tight"
    return Fit(verdict=verdict, needed=found.value, low=found.low, high=found.high, **common)
