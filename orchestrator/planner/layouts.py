"""Placement: every way to lay out a fine-tune, or a serving target, on accelerators; what fits, and what it costs.

    for layout in ranked(training(model, tune, tokens, slots), "cost"): ...

A `Slot` is a kind and a number of accelerators that would be rented together. A layout that does not fit, or that the
model's dimensions rule out, is refused with the reason; one that this version cannot carry out yet is kept and marked.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from orchestrator.catalog.gpus import Gpu
from orchestrator.catalog.models import ModelFacts
from orchestrator.config import Model
from orchestrator.errors import InputError
from orchestrator.planner.estimate import Estimate, Unknown
from orchestrator.planner.forecast import GIB, Layout
from orchestrator.planner.money.cost import of_run
from orchestrator.planner.money.prices import PriceRange
from orchestrator.planner.money.tokens_cost import Fleet, Throughput, per_million
from orchestrator.planner.serving.memory import ServingFit
from orchestrator.planner.serving.memory import memory as serving_memory
from orchestrator.planner.serving.serving import Serving
from orchestrator.planner.serving.speed import ServingSpeed
from orchestrator.planner.serving.speed import speed as serving_speed
from orchestrator.planner.training.finetune import FineTune, Sharding
from orchestrator.planner.training.memory import memory as training_memory
from orchestrator.planner.training.speed import speed as training_speed
from orchestrator.planner.training.speed import wall_time

COUNTS = (1, 2, 4, 8)
"""Accelerators of one node that `any` tries."""
Ask = Literal["cost", "time"]
Remedy = Callable[[ModelFacts, FineTune, Gpu], str | None]
"""The smallest change that would make a fine-tune fit, in words."""


class Slot(Model):
    """Accelerators of one node that would be held together."""

    kind: str
    """The recipe's word."""
    count: int
    """How many."""
    gpu: Gpu | None
    """None: the catalog does not have it."""
    price: PriceRange | Unknown
    """Of one for an hour."""
    available: bool
    """Whether a node of the cluster has so many."""
    pool: str | None = None
    """The cluster's word for the kind; None: it has none of it."""

    @property
    def usd_per_hour(self) -> float | None:
        """All of them together; None: not known."""
        return None if isinstance(self.price, Unknown) else self.price.middle * self.count

    @property
    def name(self) -> str:
        """KIND:COUNT."""
        return f"{self.kind}:{self.count}"


class Request(Model):
    """The load that targets are compared under."""

    concurrency: int = 8
    """Requests at once."""
    input_tokens: int = 512
    """Of a request."""
    output_tokens: int = 128
    """Of an answer."""


def training(
    model: ModelFacts, tune: FineTune, tokens: Estimate | Unknown, slots: Iterable[Slot], remedy: Remedy | None = None
) -> list[Layout]:
    """Every layout of a fine-tune on `tokens` tokens. One process on one accelerator is all that can be run today."""
    return [
        _training(model, split, words, tokens, slot, remedy)
        for slot in slots
        for words, split in _splits(tune, slot.count)
    ]


def serving(
    name: str, model: ModelFacts, target: Serving, slots: Iterable[Slot], request: Request, others: Sequence[str] = ()
) -> list[Layout]:
    """A serving target on each slot, whose accelerators share every copy of the model; `others` are number formats that
    its weights could have instead."""
    found = []
    for slot in slots:
        mine = _serving(name, model, target, slot, request)
        instead = [
            _serving(name, model, target.model_copy(update={"quantization": other}), slot, request) for other in others
        ]
        found += [mine, *(layout.model_copy(update={"alternative": True}) for layout in instead)]
        narrower = [layout for layout in instead if layout.fits and isinstance(layout.memory, ServingFit)]
        if mine.refused and narrower:
            best = max(narrower, key=lambda layout: _needed(layout))
            remedy = f"quantization {best.quantization}: needs {_needed(best) / GIB:.1f} GiB"
            found[-1 - len(instead)] = mine.model_copy(update={"remedy": remedy})
    return found


def shared(target: Serving, slot: Slot) -> Serving:
    """The target on the slot: its accelerators share the model, unless its options say how many do."""
    return target if target.gpus > 1 else target.model_copy(update={"tensor": slot.count})


def _needed(layout: Layout) -> float:
    return layout.memory.needed if isinstance(layout.memory, ServingFit) else 0.0


def ranked(layouts: Sequence[Layout], prefer: Ask) -> list[Layout]:
    """What can be carried out first, then what could be once this version can, then what is refused; each by cost or
    time (of a target: by cost or throughput), and by their order where neither is known."""
    return sorted(layouts, key=lambda layout: (_tier(layout), *_rank(layout, prefer)))


def wall(model: ModelFacts, tune: FineTune, gpu: Gpu, tokens: Estimate | Unknown) -> Estimate | Unknown:
    """Seconds of training on a number of tokens that is itself a prediction."""
    if isinstance(tokens, Unknown):
        return Unknown(reason=tokens.reason)
    found = wall_time(model, tune, gpu, tokens.value)
    if isinstance(found, Unknown) or tokens.low == tokens.high:
        return found
    ends = [wall_time(model, tune, gpu, amount) for amount in (tokens.low, tokens.high)]
    low, high = (end for end in ends if isinstance(end, Estimate))
    return found.model_copy(update={"low": low.low, "high": high.high})


def needs(amount: float, visible: float) -> str:
    """`needs 83.1 GiB, has 79.2 visible`."""
    return f"needs {amount / GIB:.1f} GiB, has {visible / GIB:.1f} visible"


def _splits(tune: FineTune, count: int) -> list[tuple[str, FineTune]]:
    if count == 1:
        return [("1 GPU", tune)]
    ways = {
        f"1 of {count} GPUs": Sharding(),
        "ddp": Sharding(strategy="ddp", data=count),
        "fsdp2": Sharding(strategy="fsdp2", data=count),
        "tensor": Sharding(tensor=count),
    }
    return [(words, tune.model_copy(update={"sharding": sharding})) for words, sharding in ways.items()]


def _training(
    model: ModelFacts, tune: FineTune, words: str, tokens: Estimate | Unknown, slot: Slot, remedy: Remedy | None
) -> Layout:
    gpu, missing = slot.gpu, Unknown(reason=f"unknown: the catalog has no {slot.kind}")
    memory: Estimate | Unknown = missing
    time: Estimate | Unknown = missing
    rate: Estimate | Unknown = missing
    refused = None
    if gpu is not None:
        try:
            memory, rate = training_memory(model, tune, gpu), training_speed(model, tune, gpu)
            time = wall(model, tune, gpu, tokens)
        except InputError as error:
            refused, memory = error.message, Unknown(reason=f"unknown: {error.message}")
    fits = None if refused or gpu is None else _fits(memory, gpu.memory_visible)
    if fits is False and gpu is not None:
        refused = needs(_least(memory), gpu.memory_visible)
    return Layout(
        purpose="train",
        accelerator=slot.kind,
        count=slot.count,
        parallelism=words,
        quantization=tune.base_dtype,
        memory=_bare(memory),
        visible=gpu.memory_visible if gpu else None,
        fits=fits,
        usd_per_hour=slot.usd_per_hour,
        throughput=_bare(rate),
        time=_bare(time),
        cost=_bare(of_run(time, slot.count, slot.price)),
        executable=tune.sharding.gpus == 1,
        available=slot.available,
        refused=refused,
        remedy=remedy(model, tune, gpu) if remedy and fits is False and gpu and slot.count == 1 else None,
    )


def _serving(name: str, model: ModelFacts, target: Serving, slot: Slot, request: Request) -> Layout:
    gpu, placed = slot.gpu, shared(target, slot)
    missing = Unknown(reason=f"unknown: the catalog has no {slot.kind}")
    fit: ServingFit | Unknown = missing
    speed: ServingSpeed | Unknown = missing
    refused = None
    if gpu is not None:
        try:
            fit = serving_memory(model, placed, gpu)
            speed = serving_speed(model, placed, gpu, request.concurrency, request.input_tokens, request.output_tokens)
        except InputError as error:
            refused, fit = error.message, Unknown(reason=f"unknown: {error.message}")
    fits = (
        None if refused or gpu is None else fit.fits if isinstance(fit, ServingFit) else _fits(fit, gpu.memory_visible)
    )
    if fits is False and gpu is not None:
        refused = (
            fit.reason.removeprefix("does not fit: ")
            if isinstance(fit, ServingFit)
            else needs(_least(fit), gpu.memory_visible)
        )
    return Layout(
        purpose=name,
        accelerator=slot.kind,
        count=slot.count,
        parallelism="1 GPU" if slot.count == 1 else "layers" if placed.traits.splits_layers else "tensor",
        quantization=target.quantization,
        memory=fit.model_copy(update={"terms": []}) if isinstance(fit, ServingFit) else fit,
        visible=gpu.memory_visible if gpu else None,
        fits=fits,
        usd_per_hour=slot.usd_per_hour,
        cost=_bare(million(speed, slot, request)),
        throughput=Unknown(reason=speed.reason) if isinstance(speed, Unknown) else _bare(speed.throughput),
        available=slot.available,
        refused=refused,
    )


def million(speed: ServingSpeed | Unknown, slot: Slot, request: Request) -> Estimate | Unknown:
    """USD per million output tokens of a target that is always as busy as that; the interval has the speed's too."""
    if isinstance(speed, Unknown):
        return Unknown(reason=speed.reason)
    if isinstance(slot.price, Unknown):
        return slot.price
    answered = speed.throughput.value
    reads = answered * request.input_tokens / request.output_tokens
    carried = Throughput(input_tokens_per_s=reads, output_tokens_per_s=answered)
    found = per_million(carried, Fleet(gpus_per_replica=slot.count), slot.price)
    if found is None or found.output is None:
        return Unknown(reason="unknown: nothing is written at this load")
    low, high = answered / speed.throughput.high, answered / speed.throughput.low
    return found.output.model_copy(update={"low": found.output.low * low, "high": found.output.high * high})


def _bare(found: Estimate | Unknown) -> Estimate | Unknown:
    """Without its parts: hundreds of layouts are stored with each run, and only the chosen one's sums are looked at."""
    return found.model_copy(update={"terms": []}) if isinstance(found, Estimate) else found


def _fits(memory: Estimate | Unknown, visible: int) -> bool | None:
    """By the middle of the prediction; where that is unknown, what is certain may already be too much."""
    if isinstance(memory, Unknown):
        return False if memory.low is not None and memory.low > visible else None
    return memory.value <= visible


def _least(memory: Estimate | Unknown) -> float:
    return memory.value if isinstance(memory, Estimate) else memory.low or 0.0


def _tier(layout: Layout) -> int:
    if layout.refused:
        return 3
    return (0 if not layout.alternative else 1) if layout.executable else 2


def _rank(layout: Layout, prefer: Ask) -> tuple[float, float]:
    """Of training on an unknown number of tokens, the cost and the time of one token rank as well."""
    speed = layout.throughput.value if isinstance(layout.throughput, Estimate) else 0.0
    time = layout.time.value if isinstance(layout.time, Estimate) else 1 / speed if speed else float("inf")
    cost = float("inf")
    if isinstance(layout.cost, Estimate):
        cost = layout.cost.value
    elif layout.usd_per_hour is not None:
        cost = layout.usd_per_hour * time
    return (cost, time) if prefer == "cost" else (time, cost)
