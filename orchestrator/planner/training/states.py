"""What a fine-tune holds on the fullest GPU for as long as it runs: weights, adapters, gradients, optimizer states.

Each is divided by what the sharding divides it over: FSDP and ZeRO-3 all of them, ZeRO-2 gradients and states, ZeRO-1
states; tensor and pipeline parallelism everything.
"""

from typing import NamedTuple

from orchestrator.catalog.models import ModelFacts
from orchestrator.catalog.parameters import Parameters, parameters
from orchestrator.planner.estimate import Unknown
from orchestrator.planner.training.finetune import SHARDS_GRADIENTS, SHARDS_OPTIMIZER, SHARDS_WEIGHTS, FineTune, targets
from orchestrator.planner.training.optimizers import Optimizer, optimizer
from orchestrator.planner.training.quantization import DTYPE_BYTES, WeightBytes

_KINDS = (SHARDS_WEIGHTS, SHARDS_GRADIENTS, SHARDS_OPTIMIZER)


class States(NamedTuple):
    """Bytes on the fullest GPU that last for the whole run, and buffers of the sharding."""

    weights: float
    constants: float
    adapters: float
    gradients: float
    unit_gradients: float
    """Of the head and one layer, before they are scattered."""
    optimizer: float
    buffers: float
    """Layers that are gathered whole for their turn."""
    step: float
    """While the optimizer steps."""
    loaded: float
    """What resuming reads beside the states."""
    trained: float
    """Trained parameters of the whole model."""


def trained_parameters(model: ModelFacts, tune: FineTune) -> int | Unknown:
    """How many numbers the optimizer changes."""
    if tune.trainable_parameters is not None:
        return tune.trainable_parameters
    counted = parameters(model)
    if isinstance(counted, Unknown):
        return counted
    if tune.method == "full":
        return counted.total
    found = sum(matrix.count * tune.lora_r * (matrix.inputs + matrix.outputs) for matrix in targets(model, tune))
    if tune.method == "dora":
        found += sum(matrix.count * matrix.outputs for matrix in targets(model, tune))
    return found + (counted.embedding + counted.head if tune.train_embeddings else 0)


def held(model: ModelFacts, tune: FineTune, weights: WeightBytes, counted: Parameters) -> States:
    """Of a fine-tune that `check` has passed."""
    sharding = tune.sharding
    stage = _stage_share(model, counted, sharding.pipeline) / sharding.tensor
    by: dict[tuple[str, ...], int] = {kind: sharding.replicas if sharding.strategy in kind else 1 for kind in _KINDS}
    trained = trained_parameters(model, tune)
    assert isinstance(trained, int), "the parameters are counted"
    adapter, on_host, all_on_host = tune.method != "full", tune.offload != "none", tune.offload == "all"
    count = trained * (1 / (sharding.tensor * sharding.pipeline) if adapter else stage)
    kind, each = optimizer(tune.optimizer), DTYPE_BYTES[tune.trained_dtype]
    kept = _optimizer_bytes(kind, tune, each) * count
    gradients = 0.0 if all_on_host else _gradients(model, tune, count * each)
    lasting = 0 if all_on_host else stage / by[SHARDS_WEIGHTS]
    return States(
        weights=(weights.blocks + weights.kept) * lasting,
        constants=weights.constants * lasting,
        adapters=count * each / by[SHARDS_WEIGHTS] if adapter else 0,
        gradients=gradients / by[SHARDS_GRADIENTS],
        unit_gradients=gradients * _first_share(model, tune, counted),
        optimizer=0 if on_host else kept / by[SHARDS_OPTIMIZER],
        buffers=_gathered(model, tune, weights, counted, stage),
        step=0 if on_host else kind.step_copies * count * each / by[SHARDS_OPTIMIZER],
        loaded=_loaded(tune, count * each, kept, by),
        trained=trained,
    )


def _optimizer_bytes(kind: Optimizer, tune: FineTune, each: int) -> float:
    """For each trained number; states are as wide as what they belong to, or as its master copy."""
    own = kind.state_bytes or (4 if tune.master_weights else each)
    return (0 if kind.paged else kind.states * own) + (4 if tune.master_weights else 0)


def _stage_share(model: ModelFacts, counted: Parameters, stages: int) -> float:
    """Share of the weights that the fullest pipeline stage holds: the first has the embedding, the last the head."""
    if stages == 1:
        return 1
    layers = model.layers or 1
    ends = counted.embedding + counted.head
    blocks = (counted.total - ends) * -(-layers // stages) / layers
    return min(1, (blocks + max(counted.embedding, counted.head)) / counted.total)


def _gradients(model: ModelFacts, tune: FineTune, trained_bytes: float) -> float:
    if tune.gradient_release:
        return trained_bytes / (model.layers or 1)
    return trained_bytes * (2 if tune.sharding.strategy == "ddp" else 1)  # and the buckets that DDP reduces


def _first_share(model: ModelFacts, tune: FineTune, counted: Parameters) -> float:
    """Of all gradients, the head's and one layer's."""
    head = (counted.head or counted.embedding) / counted.total if tune.method == "full" else 0
    return min(1, head + 1 / (model.layers or 1))


def _gathered(model: ModelFacts, tune: FineTune, weights: WeightBytes, counted: Parameters, stage: float) -> float:
    """Two blocks (one prefetched) and the larger end in the compute type, or packed as they are."""
    sharding, layers = tune.sharding, model.layers or 1
    streamed = tune.offload == "all"
    if not streamed and (sharding.strategy not in SHARDS_WEIGHTS or sharding.replicas == 1):
        return 0
    compute = DTYPE_BYTES[tune.compute_dtype]
    plain, ends = tune.base_dtype in DTYPE_BYTES, counted.embedding + counted.head
    blocks = (counted.total - ends) * compute if plain else weights.blocks + weights.constants
    units = (2 * blocks / layers + max(counted.embedding, counted.head) * compute) / sharding.tensor
    whole = (counted.total * compute if plain else weights.total) * stage
    if sharding.strategy == "fsdp1" and tune.method != "full":
        return whole  # a flat parameter with frozen parts is not scattered again before the backward pass is over
    return min(units, whole * (1 if streamed else 1 - 1 / sharding.replicas))


def _loaded(tune: FineTune, trained: float, states: float, by: dict[tuple[str, ...], int]) -> float:
    """A copy of the optimizer's states and of the trained weights, until they are taken over tensor by tensor."""
    if tune.offload != "none":
        return 0
    if tune.checkpoint == "full":
        return states + trained
    return states / by[SHARDS_OPTIMIZER] + trained / by[SHARDS_WEIGHTS]
