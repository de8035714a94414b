"""Bytes that autograd keeps between the forward and the backward pass, counted tensor by tensor.

The count follows transformers' modules in eager PyTorch: a norm in fp32 keeps its input in fp32; an activation function
keeps its input and a product both factors; a matrix keeps its input only where its weight, or an adapter on it, is
trained; attention keeps q, k, v and its output, and without a fused kernel two copies of its probabilities. After
Korthikanti et al., arXiv:2205.05198, who count the same for GPT-3.
"""

from typing import NamedTuple

from orchestrator.catalog.models import Attention, ModelFacts
from orchestrator.catalog.parameters import Matrix, linear_layers, part
from orchestrator.planner.training.finetune import FFN, FineTune, targets
from orchestrator.planner.training.quantization import DTYPE_BYTES

FP32 = 4
LOGITS_BESIDE = 12
"""Bytes a logit beside itself: an fp32 copy, its log-softmax, and the gradient of that (CrossEntropyLoss in fp32)."""
TILE_BYTES = 64 * 2**20
"""Of the tiles of logits in a fused head (trl/kernels/chunked_logprob.py), beside the fp32 gradient of its input."""
CHUNK_TOKENS = 1024
"""Tokens of a chunk of the chunked cross-entropy; Liger's and torchtune's are of that size for usual batches."""


class Activations(NamedTuple):
    """Bytes on one GPU, of one micro-batch, before tensor parallelism splits them."""

    layers: float
    """Kept by all layers."""
    layer: float
    """All that one layer keeps while it is recomputed or just before its backward pass."""
    logits: float
    """While the loss is computed."""
    kept_logits: float
    """That outlive the loss."""
    gradients: float
    """Of one layer's activations, in its backward pass."""
    because: str
    """The arithmetic of `layers`."""


def activations(model: ModelFacts, tune: FineTune) -> Activations:
    """Of a model whose dimensions are known."""
    layers, hidden, compute = model.layers or 1, model.hidden_size or 0, DTYPE_BYTES[tune.compute_dtype]
    tokens = tune.tokens
    all_kept = _all_layers(model, tune) * tokens + _pairs(model, tune)
    layer = all_kept / layers
    each = {"none": 0.0, "selective": _selective(model, compute) / layers, "full": 0.0, "offloaded": 0.0}
    per_token = hidden * compute + each[tune.checkpointing]
    kept = {"none": all_kept, "offloaded": 2 * tokens * per_token}.get(tune.checkpointing, layers * tokens * per_token)
    logits, kept_logits = _logits(model, tune)
    return Activations(
        layers=min(kept, all_kept),
        layer=layer,
        logits=logits,
        kept_logits=kept_logits,
        gradients=_layer_gradients(model, tune),
        because=_because(tune, layers, min(kept, all_kept) / layers / tokens, hidden),
    )


def _because(tune: FineTune, layers: int, each: float, hidden: int) -> str:
    if tune.checkpointing == "offloaded":
        return f"2 layers' inputs x {tune.tokens:.0f} tokens x {hidden} wide; the others lie in the host's memory"
    return f"{layers} layers x {tune.tokens:.0f} tokens x {each:,.0f} bytes kept (checkpointing {tune.checkpointing})"


def _all_layers(model: ModelFacts, tune: FineTune) -> float:
    """Bytes per token of all layers without checkpointing, pairs of tokens apart."""
    compute = DTYPE_BYTES[tune.compute_dtype]
    norms = (model.layers or 0) * model.norms_per_layer * _norm(model, tune, compute)
    mixing = sum(attention.layers * _attention(attention, tune, compute) for attention in model.attention)
    kept = norms + mixing + _ffn(model, tune, compute) + _adapters(model, tune, compute)
    return kept + (_inputs(model) * compute if tune.packed_inputs == "kept" else 0)


def _inputs(model: ModelFacts) -> float:
    """Widths of what enters the matrices of all layers, what several share once."""
    places = {(_source(matrix.name), matrix.inputs): _visits(model, matrix) for matrix in linear_layers(model)}
    return sum(width * count for (_, width), count in places.items())


def _norm(model: ModelFacts, tune: FineTune, compute: int) -> float:
    """A norm's input, and in full fine-tuning its normalised input for its weight, and its output for the matrices."""
    native = model.norm_bias or tune.kernels == "fused"  # LayerNorm is one kernel; RMSNorm is several, in fp32
    trained = 0 if tune.method != "full" else compute * (1 if native else 2)
    return (model.hidden_size or 0) * ((compute if native else FP32) + trained)


def _attention(attention: Attention, tune: FineTune, compute: int) -> float:
    """What an attention layer keeps of one token, in front of its output matrix."""
    head, value = attention.head_dim, attention.value_head_dim or attention.head_dim
    queries, outputs = attention.heads * head, attention.heads * value
    if attention.kind == "linear":  # q, k, v before and after the convolution, gates, decays and the chunks' states
        mixed = 2 * attention.kv_heads * head + outputs
        return compute * (2 * mixed + 3 * outputs) + FP32 * mixed
    if attention.kind == "mla":
        wide = attention.heads * (head + (attention.rope_head_dim or 0))
        latent = (attention.q_lora_rank or 0) + (attention.kv_lora_rank or 0)
        return compute * (2 * wide + 2 * outputs) + FP32 * (latent + attention.heads)
    grouped = attention.kv_heads if tune.attention == "flash" else attention.heads
    kept = compute * (queries + grouped * (head + value) + outputs) + FP32 * attention.heads
    if attention.qk_norm:
        kept += (FP32 if tune.kernels == "eager" else compute) * (attention.heads + attention.kv_heads) * head
    return kept + (2 * compute * outputs if attention.output_gate else 0)


def _pairs(model: ModelFacts, tune: FineTune) -> float:
    """Probabilities in fp32 and in the compute type, for every head and pair of tokens."""
    if tune.attention != "eager":
        return 0
    each = FP32 + DTYPE_BYTES[tune.compute_dtype]
    heads = sum(a.heads * a.layers for a in model.attention if a.kind != "linear")
    return heads * each * tune.micro_batch_size * tune.row_tokens**2 / tune.sharding.context


def _ffn(model: ModelFacts, tune: FineTune, compute: int) -> float:
    """Of all layers: gated, the gate before and after its activation function and the other factor."""
    factors = (2 if tune.kernels == "fused" else 3) if model.gated_ffn else 1
    factors += 1 if tune.method == "full" else 0  # the input of the down-projection
    experts, hidden = model.experts, model.hidden_size or 0
    dense = next((matrix.count for matrix in linear_layers(model) if matrix.name == "up_proj"), 0)
    kept = dense * factors * compute * (model.intermediate_size or 0)
    if experts:
        width = experts.active * experts.intermediate_size + experts.shared_intermediate_size
        sent = (
            2 * experts.active * (experts.latent_size or hidden) * compute
        )  # each expert's copy of the token, and its output to be weighed
        kept += experts.layers * (factors * compute * width + sent + 2 * FP32 * experts.routed)
    return kept


def _adapters(model: ModelFacts, tune: FineTune, compute: int) -> float:
    """Of all layers: adapters keep their inputs in their own type, and what is between A and B."""
    if tune.method == "full":
        return 0
    own = DTYPE_BYTES[tune.trained_dtype]
    copied = own != compute or tune.lora_dropout > 0
    kept, seen = 0.0, set()
    for matrix in targets(model, tune):
        place = (_source(matrix.name), matrix.inputs)
        if copied or place not in seen:
            kept += matrix.count * matrix.inputs * (compute if tune.autocast else own)
        seen.add(place)
        kept += matrix.count * tune.lora_r * own
        kept += matrix.count * matrix.inputs if tune.lora_dropout else 0  # the mask
        if tune.method == "dora":  # the base's output and the adapter's, both scaled by the magnitude
            kept += matrix.count * matrix.outputs * (compute + own)
    return kept


def _source(name: str) -> str:
    """Matrices that share an input share this word."""
    last = name.rsplit(".", 1)[-1]
    if last in ("gate_proj", "up_proj"):
        return name.removesuffix(last) + "ffn"
    return "attention" if last in ("q_proj", "k_proj", "v_proj") else name


def _selective(model: ModelFacts, compute: int) -> float:
    """Of all layers, as torchtitan's per-operation choice: the output of every other matrix, and attention's."""
    visited = sum(_visits(model, matrix) * matrix.outputs for matrix in linear_layers(model))
    return compute * (visited / 2 + sum(a.layers * a.heads * (a.value_head_dim or a.head_dim) for a in model.attention))


def _visits(model: ModelFacts, matrix: Matrix) -> float:
    """How many copies of a matrix a token goes through."""
    if part(matrix.name) != "experts" or model.experts is None:
        return matrix.count
    return matrix.count * model.experts.active / model.experts.routed


def _logits(model: ModelFacts, tune: FineTune) -> tuple[float, float]:
    """While the loss is computed, and what outlives it."""
    vocab, tokens, compute = model.vocab_size or 0, tune.tokens, DTYPE_BYTES[tune.compute_dtype]
    beside = LOGITS_BESIDE if compute < FP32 else LOGITS_BESIDE - FP32
    if tune.loss == "full":
        return tokens * vocab * (compute + beside), tokens * vocab * compute
    hidden = model.hidden_size or 0
    inputs = tokens * hidden * compute
    if tune.loss == "fused":
        return inputs + tokens * hidden * FP32 + TILE_BYTES, inputs
    return min(tokens, CHUNK_TOKENS) * vocab * (compute + beside) + inputs, inputs


def _layer_gradients(model: ModelFacts, tune: FineTune) -> float:
    """The gradients of an FFN's factors, its input and the residual stream live together."""
    experts = model.experts
    width = model.intermediate_size or 0
    if experts:
        width = max(width, experts.active * experts.intermediate_size + experts.shared_intermediate_size)
    factors = len(FFN) if model.gated_ffn else 2
    compute = DTYPE_BYTES[tune.compute_dtype]
    pairs = _pairs(model, tune) / (model.layers or 1) * 2 * FP32 / (FP32 + compute)
    return tune.tokens * compute * (factors * width + 2 * (model.hidden_size or 0)) + pairs
