"""Speed of a fine-tune: seconds of one micro-batch on one GPU as a sum of parts, and tokens per second of all GPUs.

Matrix products and attention by their FLOPs and the GPU's dense peak; what is moved through memory beside them
(norms, activation functions, logits, the optimizer's states, unpacked 4-bit weights) by its bytes; collective
operations by the links; Python's time to start kernels where the GPU would be faster. A frozen weight needs no
gradient: a LoRA step takes 4 FLOPs per parameter and token rather than 6, and 2 more with checkpointing.
"""

import math
from typing import NamedTuple

from orchestrator.catalog.gpus import Gpu
from orchestrator.catalog.models import Attention, ModelFacts
from orchestrator.catalog.parameters import Parameters, parameters
from orchestrator.planner.estimate import Estimate, Term, Unknown
from orchestrator.planner.training.activations import activations
from orchestrator.planner.training.constants import SPEED, SpeedConstants, doubt
from orchestrator.planner.training.finetune import FineTune, check, targets
from orchestrator.planner.training.links import communication, offloading
from orchestrator.planner.training.optimizers import optimizer
from orchestrator.planner.training.quantization import DTYPE_BYTES, bits
from orchestrator.planner.training.states import trained_parameters

CLIPPING = 3
"""Times that a gradient is moved while its norm is taken and clipped."""
FOREACH = 12
"""Times that a number is moved more by an optimizer of separate kernels than by a fused one, of 20 in all for AdamW."""
LOADING_BANDWIDTH = 1e9
"""Bytes/s from a local disk to the GPU; wide interval: 0.3 from a shared file system, 3 from NVMe."""
START_SECONDS = 60
"""Imports, tokenization of a small data set, the first slow steps."""


class Work(NamedTuple):
    """FLOPs of one token in one forward pass, by the unit that does them."""

    products: float
    """Of the blocks' dense matrices."""
    experts: float
    """Of those that it visits."""
    head: float
    """Of the output head."""
    attention: float
    """Of queries with keys and probabilities with values."""


def speed(model: ModelFacts, tune: FineTune, gpu: Gpu, *, constants: SpeedConstants = SPEED) -> Estimate | Unknown:
    """Tokens per second of all GPUs together; its terms are seconds of one micro-batch. InputError as `memory`.

    Counted are the tokens that are computed: padding too, where rows are not packed.
    """
    check(model, tune)
    counted = parameters(model)
    if isinstance(counted, Unknown):
        return Unknown(reason=counted.reason)
    peak, quantized = peaks(gpu, tune)
    if peak is None or gpu.bandwidth is None:
        return Unknown(reason=f"unknown: the peak FLOP/s or the bandwidth of {gpu.id} is not in the catalog")
    terms = seconds(model, tune, gpu, counted, peak, quantized or peak, constants)
    total = sum(term.amount for term in terms)
    rows = tune.micro_batch_size * row_tokens(tune)
    value, wider = rows * tune.sharding.data / total, doubt(model, gpu.verified)
    low, high = value * constants.low / wider, value * constants.high * wider
    return Estimate(unit="tokens/s", value=value, low=low, high=high, terms=terms)


def wall_time(
    model: ModelFacts, tune: FineTune, gpu: Gpu, tokens: float, *, constants: SpeedConstants = SPEED
) -> Estimate | Unknown:
    """Seconds to train on that many tokens, with the start: loading the weights, imports and the first slow steps."""
    rate = speed(model, tune, gpu, constants=constants)
    if isinstance(rate, Unknown):
        return rate
    counted = parameters(model)
    assert not isinstance(counted, Unknown), "speed would be unknown"
    loading = counted.total * 2 / LOADING_BANDWIDTH
    start = START_SECONDS + loading
    terms = [
        Term(name="training", amount=tokens / rate.value, because=f"{tokens:,.0f} tokens at {rate.value:,.0f}/s"),
        Term(name="start", amount=start, because=f"{START_SECONDS} s and {counted.total * 2 / 1e9:.1f} GB at 1 GB/s"),
    ]
    return Estimate(
        unit="s",
        value=tokens / rate.value + start,
        low=tokens / rate.high + START_SECONDS / 2 + loading / 3,
        high=tokens / rate.low + START_SECONDS * 2 + loading * 3,
        terms=terms,
    )


def row_tokens(tune: FineTune) -> int:
    """Of a usual row."""
    return tune.sequence_len if tune.packing else min(tune.mean_row or tune.row_tokens, tune.row_tokens)


def peaks(gpu: Gpu, tune: FineTune) -> tuple[float | None, float | None]:
    """Dense FLOP/s in the compute type, and in the type that matrices are quantized to; FP8 where FP4 is not there."""
    flops = gpu.flops
    plain = flops.get(tune.compute_dtype) or flops.get("bf16") or flops.get("fp16") or flops.get("tf32")
    if tune.compute_dtype == "fp32":
        plain = flops.get("tf32") or flops.get("fp32") or plain
    if tune.compute == "16-bit":
        return plain, plain
    found = flops.get("fp4") if tune.compute == "fp4" else None
    return plain, found or flops.get("fp8") or plain


def work(model: ModelFacts, tune: FineTune, counted: Parameters) -> Work:
    """Of one token: two FLOPs a weight that it meets, and attention over the tokens before it."""
    dense = counted.attention + counted.ffn + counted.shared_experts + counted.router
    experts = counted.experts * model.experts.active / model.experts.routed if model.experts else 0
    pairs = sum(attention.layers * _pair_flops(attention, row_tokens(tune)) for attention in model.attention)
    return Work(2 * dense, 2 * experts, 2 * (counted.head or counted.embedding), pairs)


def _pair_flops(attention: Attention, tokens: int) -> float:
    """Of one token in one layer; causal, so that it sees half of the row on average."""
    value = attention.value_head_dim or attention.head_dim
    wide = attention.heads * (attention.head_dim + (attention.rope_head_dim or 0) + value)
    if attention.kind == "linear":  # a chunk's products and the state's update and reading
        return 2 * attention.heads * attention.head_dim * value * 2 + 2 * wide * 64
    seen = min(tokens / 2, attention.window or tokens / 2)
    return 2 * wide * seen


def seconds(
    model: ModelFacts,
    tune: FineTune,
    gpu: Gpu,
    counted: Parameters,
    peak: float,
    quantized: float,
    constants: SpeedConstants,
) -> list[Term]:
    """Of one micro-batch on one GPU, its share of the optimizer's step included."""
    each, split = work(model, tune, counted), tune.sharding.tensor * tune.sharding.pipeline
    tokens = tune.micro_batch_size * row_tokens(tune) / tune.sharding.context / split
    passes, attended = _passes(tune)
    rate = constants.products if tune.compute == "16-bit" else constants.quantized_products
    clock = _clock(gpu, constants)
    found = {
        "matrix products": tokens * passes * each.products / (quantized * rate * clock),
        "experts": tokens * passes * each.experts / (quantized * rate * clock * constants.expert_products),
        "output head": tokens * _head_passes(tune) * each.head / (peak * constants.products * clock),
        "attention": tokens * attended * each.attention / (peak * constants.attention * clock),
        "reading weights": _weights_read(model, tune, counted, passes) / split / _bandwidth(gpu, constants),
        "memory traffic": _traffic(model, tune, tokens, passes, constants) / _bandwidth(gpu, constants),
        "unpacked weights": _unpacking(counted, tune, passes) / split / _bandwidth(gpu, constants),
        "optimizer": _optimizer(model, tune, counted) / _bandwidth(gpu, constants),
    }
    busy = sum(found.values())
    launching = _launching(model, tune, constants)
    found["waiting for Python"] = max(launching - busy, 0) + constants.sync * min(launching, busy)
    found |= communication(model, tune, gpu, counted, tokens * split, busy, constants)
    found["offloading"] = offloading(model, tune, gpu, counted, constants)
    found["pipeline bubble"] = sum(found.values()) * _bubble(tune)
    return [Term(name=name, amount=amount, because=_BECAUSE[name]) for name, amount in found.items() if amount]


_BECAUSE = {
    "matrix products": "2 FLOPs a weight, token and pass at the peak of the type, times what products reach",
    "experts": "of the experts that a token visits",
    "reading weights": "once in each pass: what counts when a micro-batch has few tokens",
    "output head": "hidden size x vocabulary, in 16 bits",
    "attention": "pairs of tokens, causal",
    "memory traffic": "norms, activation functions and logits, by bytes",
    "unpacked weights": "quantized weights read and written in 16 bits, in each pass",
    "optimizer": "weights, gradients and states read and written once a step",
    "waiting for Python": "starting kernels takes longer than running them",
    "sharding": "gathering weights and scattering gradients, the part that is not hidden",
    "tensor parallel": "two sums over the GPUs in each layer and pass",
    "expert parallel": "tokens sent to their experts and back",
    "offloading": "weights and gradients over PCIe, and the optimizer on the host",
    "pipeline bubble": "stages that wait at the start and the end of a step",
}


def _passes(tune: FineTune) -> tuple[float, float]:
    """Forward passes that a step is worth, in matrix products and in attention."""
    backward = 2 if tune.method == "full" else 1
    again = {"none": 0.0, "selective": 0.5, "full": 1.0, "offloaded": 1.0}[tune.checkpointing]
    return 1 + backward + again, 1 + 2.5 + (0 if tune.checkpointing in ("none", "selective") else 1)


def _head_passes(tune: FineTune) -> float:
    """The head is not checkpointed; a chunked loss computes its gradient in the forward pass."""
    return 3 if tune.method == "full" else 2


def _clock(gpu: Gpu, constants: SpeedConstants) -> float:
    """Share of the boost clock that the power limit allows in dense products; power grows with about its square."""
    peak = gpu.flops.get("bf16") or gpu.flops.get("fp16")
    if gpu.tdp_watts is None or peak is None:
        return 1
    return min(1.0, math.sqrt(gpu.tdp_watts / peak / constants.joules))


def _weights_read(model: ModelFacts, tune: FineTune, counted: Parameters, passes: float) -> float:
    """Bytes: the experts that a micro-batch visits, and all of the rest."""
    visited = 1.0
    if model.experts:
        chosen = tune.micro_batch_size * row_tokens(tune) * model.experts.active
        visited = min(1.0, chosen / model.experts.routed) / tune.sharding.expert
    dense = counted.total - counted.embedding - counted.experts - counted.vision
    return (dense + counted.experts * visited) * DTYPE_BYTES[tune.compute_dtype] * passes


def _bandwidth(gpu: Gpu, constants: SpeedConstants) -> float:
    return (gpu.bandwidth or 1) * constants.bandwidth


def _traffic(model: ModelFacts, tune: FineTune, tokens: float, passes: float, constants: SpeedConstants) -> float:
    """What a layer keeps is written once and read once or twice in each pass; the logits' copies likewise."""
    plain = tune.model_copy(update={"checkpointing": "none", "longest_row": row_tokens(tune)})
    found = activations(model, plain)
    return constants.traffic * tokens * (found.layers * (passes + 1) + found.logits * 2) / plain.tokens


def _unpacking(counted: Parameters, tune: FineTune, passes: float) -> float:
    """Bytes: read packed, written in 16 bits, and read by the product."""
    if tune.base_dtype in DTYPE_BYTES:
        return 0
    weights = counted.attention + counted.ffn + counted.experts + counted.shared_experts
    return weights * (bits(tune.base_dtype) / 8 + DTYPE_BYTES[tune.compute_dtype]) * passes


def _optimizer(model: ModelFacts, tune: FineTune, counted: Parameters) -> float:
    """Bytes of a micro-batch's share: states read and written, weights too, gradients read."""
    trained = trained_parameters(model, tune)
    assert isinstance(trained, int)
    kind, each = optimizer(tune.optimizer), DTYPE_BYTES[tune.trained_dtype]
    state = kind.states * (kind.state_bytes or each)
    shared = tune.sharding.replicas if tune.sharding.strategy not in ("none", "ddp") else 1
    split = tune.sharding.tensor * tune.sharding.pipeline * shared
    moved = 2 * state + (4 + CLIPPING) * each + FOREACH * each * kind.step_copies
    return trained * moved / split / tune.gradient_accumulation_steps


def _launching(model: ModelFacts, tune: FineTune, constants: SpeedConstants) -> float:
    """Seconds that Python takes to start the kernels of all layers, in as many passes."""
    layers = (model.layers or 0) / tune.sharding.pipeline
    adapters = sum(matrix.count for matrix in targets(model, tune)) / tune.sharding.pipeline
    once = layers * constants.launch + adapters * constants.adapter_launch
    again = 2 if tune.checkpointing in ("none", "selective") else 3
    sent = model.experts.layers / tune.sharding.pipeline * constants.expert_launch if model.experts else 0
    return again * (once * (constants.fused_launch if tune.kernels == "fused" else 1) + sent)


def _bubble(tune: FineTune) -> float:
    """Share of a step's micro-batches that a stage waits: (stages - 1) / (chunks x micro-batches)."""
    stages = tune.sharding.pipeline
    return (stages - 1) / tune.sharding.pipeline_chunks / max(tune.gradient_accumulation_steps, stages)
