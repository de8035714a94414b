"""`Shape`: a target as a roofline sees it: what one of its GPUs reads and computes for one step, at the peaks.

Numbers are of one GPU of one copy and of one pipeline stage. Nothing fitted is in here: everything follows from the
model's dimensions, the weight format and the GPU's published peaks.
"""

from typing import NamedTuple

from orchestrator.catalog.gpus import Gpu
from orchestrator.catalog.kv_cache import kv_bytes, state_bytes_per_sequence
from orchestrator.catalog.models import Attention, ModelFacts
from orchestrator.catalog.parameters import Parameters, parameters
from orchestrator.planner.estimate import Unknown
from orchestrator.planner.serving.formats import PARTS, compute_type, part_bits
from orchestrator.planner.serving.serving import Serving, check
from orchestrator.planner.serving.weights import gpu_weights, shares

SIXTEEN = ("bf16", "fp16")
UNPACKED = 0.85
"""Part of the 16-bit FLOP/s that is left when packed weights are unpacked for each product: W4A16 kernels fall behind
plain ones at large batches (Marlin, arXiv:2408.11743, figure 9)."""

EXPERT_WAIT = 3.3
"""Dense blocks whose kernels wait as long as those that a mixture has beyond one: router, top-k, sort, permute, combine
and the shared expert are some eleven kernels of 4 us, too short to hide in what is read."""
KIND_WAIT = {"mla": 2.4, "linear": 1.5}
"""The same for the projections to and from a latent, and for convolution, gates and norm of a linear layer."""


class Layers(NamedTuple):
    """Attention layers of one kind."""

    bytes_per_token: float
    """Read for each token of the context by each decoded token."""
    window: int | None
    """No more context than this is read; None: all."""
    decode_flops: float
    """For each token of the context, by each decoded token."""
    prefill_flops: float
    """For each token of the context, by each token of a prompt (MLA expands its latent there, which costs less)."""


class Shape(NamedTuple):
    """What a step costs at the peaks."""

    arch: str
    """Of the GPU, such as sm_90."""
    bandwidth: float
    """Of its memory, bytes/s."""
    dense_bytes: float
    """Weights that each step reads: all but the embedding and routed experts."""
    expert_bytes: float
    """Routed experts."""
    routed: int
    """Experts of a layer; 0: a dense model."""
    active: int
    """Experts that a token visits."""
    dense_seconds: float
    """Matrix products of one token at the peak of its type."""
    expert_seconds: float
    """Of the routed experts."""
    head_seconds: float
    """Of the output head, for each token that is sampled."""
    expert_layers: float
    """Layers with experts."""
    activation_bytes: float
    """Moved between kernels for each token."""
    attention: tuple[Layers, ...]
    """By kind."""
    state_bytes: float
    """Recurrent state that a decoded token reads and writes."""
    attention_flops: float
    """16-bit peak, FLOP/s."""
    layers: float
    """Transformer blocks of one stage."""
    waits: float
    """What their kernels' latencies add up to, in dense blocks of grouped attention."""
    hidden: int
    """Width of the residual stream."""
    shards: int
    """GPUs that share a layer."""
    stages: int
    """GPUs that take turns."""
    data: int
    """Copies of the attention that share the experts (1: none do)."""
    link: float | None
    """Between GPUs of a node, bytes/s; None: unknown."""
    graphs: bool
    """Decode steps are captured."""


def shape(model: ModelFacts, serving: Serving, gpu: Gpu) -> Shape | Unknown:
    """Unknown when the model's dimensions or the GPU's speeds are."""
    check(model, serving)
    counted, weights = parameters(model), gpu_weights(model, serving)
    if isinstance(counted, Unknown):
        return Unknown(reason=counted.reason)
    if isinstance(weights, Unknown):
        return Unknown(reason=weights.reason)
    low, wide = compute_type(serving.format, gpu.flops), next((name for name in SIXTEEN if gpu.flops.get(name)), None)
    if gpu.bandwidth is None or low is None or wide is None:
        return Unknown(reason=f"unknown: {_lacking(gpu, serving)} of {gpu.name} is not in the catalog")
    if serving.shards > 1 and gpu.link_bandwidth is None:
        return Unknown(reason=f"unknown: the bandwidth between GPUs of {gpu.name} is not in the catalog")
    unpacked = UNPACKED if low in SIXTEEN and serving.format.bits < 16 else 1.0
    return _shape(model, serving, gpu, counted, weights, (gpu.flops[low] * unpacked, gpu.flops[wide]))


def _lacking(gpu: Gpu, serving: Serving) -> str:
    return "the memory bandwidth" if gpu.bandwidth is None else f"the FLOP/s for {serving.format.name} weights"


def _shape(
    model: ModelFacts,
    serving: Serving,
    gpu: Gpu,
    counted: Parameters,
    weights: dict[str, float],
    peaks: tuple[float, float],
) -> Shape:
    experts, hidden = model.experts, model.hidden_size or 0
    spread = serving.data if serving.expert_parallel else 1
    seconds = _seconds(model, serving, counted, peaks)
    read = {name: amount for name, amount in weights.items() if name not in ("embedding", "experts", "vision")}
    if not counted.head:  # tied: the head's product reads the embedding
        read["head"] = weights["embedding"]
    return Shape(
        arch=gpu.arch,
        bandwidth=gpu.bandwidth or 0.0,
        dense_bytes=sum(read.values()),
        expert_bytes=weights["experts"],
        routed=experts.routed if experts else 0,
        active=experts.active if experts else 0,
        dense_seconds=seconds["attention"] + seconds["ffn"] + seconds["shared_experts"],
        expert_seconds=seconds["experts"],
        head_seconds=2 * (model.vocab_size or 0) * hidden / serving.shards / peaks[1],
        expert_layers=(experts.layers if experts else 0) / serving.stages,
        activation_bytes=_activation_bytes(model, serving),
        attention=tuple(_layers(model, found, serving) for found in model.attention if found.kind != "linear"),
        state_bytes=2.0 * state_bytes_per_sequence(model, tensor=serving.shards) / serving.stages,
        attention_flops=peaks[1],
        layers=(model.layers or 0) / serving.stages,
        waits=_waits(model) / serving.stages,
        hidden=hidden,
        shards=serving.shards,
        stages=serving.stages,
        data=spread,
        link=gpu.link_bandwidth,
        graphs=serving.cuda_graphs,
    )


def _waits(model: ModelFacts) -> float:
    mixtures = model.experts.layers * EXPERT_WAIT if model.experts else 0
    return (
        (model.layers or 0) + mixtures + sum(found.layers * KIND_WAIT.get(found.kind, 0) for found in model.attention)
    )


def _seconds(model: ModelFacts, serving: Serving, counted: Parameters, peaks: tuple[float, float]) -> dict[str, float]:
    """Of one token, by part, at the peak of the type that the part is computed in; every copy brings its own tokens."""
    held, found = shares(model, serving), {}
    for part in PARTS:
        peak = peaks[0] if part_bits(counted, serving.format, part) < 16 else peaks[1]
        share = held[part] * (serving.data if part == "experts" and serving.expert_parallel else 1)
        visited = model.experts.active / model.experts.routed if part == "experts" and model.experts else 1
        found[part] = 2 * getattr(counted, part) * visited * share / peak
    return found


def _layers(model: ModelFacts, kind: Attention, serving: Serving) -> Layers:
    """Products with keys and values: MLA attends to the latent itself while decoding."""
    alone = model.model_copy(update={"attention": [kind]})
    value = kind.value_head_dim or kind.head_dim
    wide = kind.head_dim + value + (kind.rope_head_dim or 0)
    latent = 2 * (kind.kv_lora_rank or 0) + (kind.rope_head_dim or 0)
    each = 2 * kind.heads * kind.layers / serving.shards / serving.stages
    return Layers(
        bytes_per_token=kv_bytes(alone, 1, serving.kv_bytes, tensor=serving.shards) / serving.stages,
        window=kind.window if kind.kind in ("sliding", "chunked") else None,
        decode_flops=each * (latent if kind.kind == "mla" else wide),
        prefill_flops=each * wide,
    )


def _activation_bytes(model: ModelFacts, serving: Serving) -> float:
    """What kernels hand each other, written once and read once in 16 bits: the residual stream whole, inner widths cut.

    An expert's tokens are copied together before its products and summed after them.
    """
    hidden, layers, cut = model.hidden_size or 0, (model.layers or 0) / serving.stages, 1 / serving.shards
    experts = model.experts
    total = layers * 4.0 * hidden  # two norms and two residual sums
    total += sum(found.layers * found.heads * found.head_dim * 2 for found in model.attention) * cut / serving.stages
    dense = layers - (experts.layers if experts else 0) / serving.stages
    total += dense * 3 * (model.intermediate_size or 0) * cut
    if experts:
        each = 2 * hidden + 3 * experts.intermediate_size * cut
        total += experts.layers / serving.stages * (experts.active * each + 3 * experts.shared_intermediate_size * cut)
    return total * 2 * 2
