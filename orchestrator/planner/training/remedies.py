"""The smallest change that would make a fine-tune fit, in the order in which an engineer would try them.

First what changes nothing but memory (loss, attention, micro-batch with accumulation, checkpointing), then what costs
speed (optimizer in 8 bits, offloading), then what changes the result (shorter rows, a quantized base), then more GPUs.
"""

from collections.abc import Iterable, Iterator

from orchestrator.catalog.gpus import Gpu
from orchestrator.catalog.models import ModelFacts
from orchestrator.config import Model
from orchestrator.errors import InputError
from orchestrator.planner.estimate import Estimate
from orchestrator.planner.training.finetune import FineTune, Sharding
from orchestrator.planner.training.memory import memory
from orchestrator.planner.training.quantization import DTYPE_BYTES

GIB = 2**30
SHORTEST_ROW = 256
"""Tokens under which a row is no longer proposed."""
MORE_GPUS = (2, 4, 8)
EIGHT_BITS = "adamw_bnb_8bit"
Changes = dict[str, object]
"""Fields of a FineTune and their new values."""


class Remedy(Model):
    """A change after which the fine-tune fits."""

    text: str
    """What to set, such as `micro_batch_size 4 -> 1, gradient_accumulation_steps 1 -> 4`."""
    tune: FineTune
    """With the change made."""
    needed: float
    """Bytes that it then needs."""
    gpus: int
    """How many GPUs it then takes."""


def smallest_change(model: ModelFacts, tune: FineTune, gpu: Gpu, *, most: int = 3) -> list[Remedy]:
    """Up to `most` changes that make it fit, the smallest first: one setting, else as few together as suffice.

    [] when it fits already, when its memory is unknown, and when nothing listed makes it fit.
    """
    start = _needed(model, tune, gpu)
    if start is None or start <= gpu.memory_visible:
        return []
    harmless = _tried(model, tune, gpu, _harmless(tune)) or _combined(model, tune, gpu, _harmless(tune))
    found = harmless + _tried(model, tune, gpu, _costly(tune))
    return found[:most] or _combined(model, tune, gpu, [*_harmless(tune), *_costly(tune)])


def describe(remedies: list[Remedy]) -> list[str]:
    """A line for each, such as `set checkpointing none -> full: needs 18.2 GiB`."""
    more = [f" on {remedy.gpus} GPUs" if remedy.gpus > 1 else "" for remedy in remedies]
    return [
        f"set {remedy.text}: needs {remedy.needed / GIB:.1f} GiB{where}"
        for remedy, where in zip(remedies, more, strict=True)
    ]


def _harmless(tune: FineTune) -> Iterator[Changes]:
    """Changes that leave the result as it is; of a kind with steps, the mildest first."""
    if tune.loss == "full":
        yield {"loss": "fused"}
    if tune.attention == "eager":
        yield {"attention": "flash"}
    yield from _halvings(tune)
    if tune.checkpointing in ("none", "selective"):
        yield {"checkpointing": "full"}


def _costly(tune: FineTune) -> Iterator[Changes]:
    """Changes that cost speed, GPUs or quality."""
    if tune.optimizer.startswith("adamw") and "bit" not in tune.optimizer:
        yield {"optimizer": EIGHT_BITS}
        yield {"optimizer": "paged_adamw_8bit"}
    if tune.offload == "none" and tune.sharding.replicas > 1:
        yield {"offload": "optimizer"}
        yield {"offload": "all"}
    if tune.method in ("lora", "dora") and tune.base_dtype in DTYPE_BYTES:
        yield {"method": "qlora", "weights_dtype": "nf4-dq"}
    if tune.method == "full":
        yield {"method": "lora", "weights_dtype": "bf16"}
        yield {"method": "qlora", "weights_dtype": "nf4-dq"}
    yield from _more_gpus(tune)
    yield from _shorter(tune)


def _halvings(tune: FineTune) -> Iterator[Changes]:
    """Smaller micro-batches with as many rows in a step."""
    size = tune.micro_batch_size // 2
    while size:
        rows = tune.micro_batch_size * tune.gradient_accumulation_steps
        yield {"micro_batch_size": size, "gradient_accumulation_steps": -(-rows // size)}
        size //= 2


def _shorter(tune: FineTune) -> Iterator[Changes]:
    length = tune.row_tokens // 2
    while length >= SHORTEST_ROW:
        yield {"sequence_len": length}
        length //= 2


def _more_gpus(tune: FineTune) -> Iterator[Changes]:
    if tune.sharding.strategy in ("none", "ddp", "fsdp2"):
        for count in MORE_GPUS:
            if count > tune.sharding.data:
                sharding = tune.sharding.model_copy(update={"strategy": "fsdp2", "data": count})
                yield {"sharding": sharding}


def _tried(model: ModelFacts, tune: FineTune, gpu: Gpu, all_: Iterable[Changes]) -> list[Remedy]:
    """The changes that suffice alone, of each kind the mildest."""
    found: dict[str, Remedy] = {}
    for changes in all_:
        if remedy := _fitting(model, tune, changes, gpu):
            found.setdefault(next(iter(changes)), remedy)
    return list(found.values())


def _combined(model: ModelFacts, tune: FineTune, gpu: Gpu, all_: Iterable[Changes]) -> list[Remedy]:
    """Each kind as far as it goes, one after the other, until it fits; then without those that turn out needless."""
    furthest: dict[str, Changes] = {}
    for changes in all_:
        furthest[next(iter(changes))] = changes
    taken: list[Changes] = []
    for changes in furthest.values():
        taken.append(changes)
        if remedy := _fitting(model, tune, _merged(taken), gpu):
            break
    else:
        return []
    for changes in list(taken):
        fewer = [one for one in taken if one is not changes]
        if better := _fitting(model, tune, _merged(fewer), gpu):
            taken, remedy = fewer, better
    return [remedy]


def _merged(taken: Iterable[Changes]) -> Changes:
    return {key: value for changes in taken for key, value in changes.items()}


def _fitting(model: ModelFacts, tune: FineTune, changes: Changes, gpu: Gpu) -> Remedy | None:
    changed = tune.model_copy(update=changes)
    try:
        needed = _needed(model, changed, gpu)
    except InputError:  # such as a sharding that this model does not have
        return None
    if needed is None or needed > gpu.memory_visible:
        return None
    return Remedy(text=_text(tune, changes), tune=changed, needed=needed, gpus=changed.sharding.gpus)


def _needed(model: ModelFacts, tune: FineTune, gpu: Gpu) -> float | None:
    found = memory(model, tune, gpu)
    return found.value if isinstance(found, Estimate) else None


def _text(tune: FineTune, changes: Changes) -> str:
    return ", ".join(_change(key, getattr(tune, key), value) for key, value in changes.items())


def _change(key: str, before: object, after: object) -> str:
    if isinstance(after, Sharding):
        was = before.gpus if isinstance(before, Sharding) else 1
        return f"GPUs {was} -> {after.gpus} ({after.strategy})"
    return f"{key} {'default' if before is None else before} -> {after}"
