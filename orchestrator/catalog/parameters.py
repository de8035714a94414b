"""How many parameters a model has, counted from its dimensions, and every matrix in its blocks.

The count follows the modules of transformers' implementations. The vision tower is counted where its size is known;
multi-token-prediction heads are not part of the model that is trained or served, and are left out.
"""

from dataclasses import dataclass

from orchestrator.catalog.models import Attention, Experts, ModelFacts
from orchestrator.catalog.unknown import Unknown
from orchestrator.config import Model

EXPERTS = "experts."
"""How the name of a matrix begins of which a token visits only some copies."""
SHARED = "shared_experts."
"""And of one that every token visits."""
LATENT = ("fc1_latent_proj", "fc2_latent_proj")
"""To the width of the routed experts and back."""


@dataclass(frozen=True)
class Matrix:
    """A weight matrix and how many copies the whole model has."""

    name: str
    """As in transformers: q_proj, gate_proj, experts.up_proj, kv_b_proj."""
    inputs: int
    outputs: int
    count: int

    @property
    def parameters(self) -> int:
        """Of all copies."""
        return self.inputs * self.outputs * self.count


class Parameters(Model):
    """Numbers of parameters over all layers; they add up to the total."""

    total: int
    """Everything, with the vision tower where its size is known."""
    active: int
    """That one token meets: the total less the experts that it does not visit, and less the vision tower."""
    embedding: int
    """Input embedding, and the learned positions."""
    head: int
    """Output head; 0 where it is the embedding."""
    attention: int
    """Matrices of the attention, also of the linear one."""
    ffn: int
    """Matrices of the dense FFNs."""
    experts: int
    """Matrices of all routed experts."""
    shared_experts: int
    """Matrices of the experts that every token visits."""
    router: int
    """What chooses the experts."""
    norms: int
    """Weights of the norms."""
    other: int
    """Biases, convolutions, decay rates, sinks."""
    vision: int
    """Vision tower and projector; 0: none, or unknown."""
    layers: int
    """To divide by."""


def missing(model: ModelFacts) -> list[str]:
    """The dimensions that the count needs and that are unknown."""
    found = [name for name in ("layers", "hidden_size", "vocab_size") if getattr(model, name) is None]
    if not model.attention:
        found.append("attention")
    return [*found, "intermediate_size"] if _dense(model) > 0 and model.intermediate_size is None else found


def _dense(model: ModelFacts) -> int:
    """Layers with an FFN without experts; at least one where the number of layers is unknown."""
    layers = (model.layers or 0) if model.ffn_layers is None else model.ffn_layers
    if model.experts is None:
        return layers or 1
    return layers - model.experts.layers


def parameters(model: ModelFacts) -> Parameters | Unknown:
    """Counted from the dimensions; where some are unknown, the published total as the only certain thing."""
    lacking = missing(model)
    if lacking:
        published = model.published_parameters
        verb = "is" if len(lacking) == 1 else "are"
        why = f" ({model.notes})" if model.notes else ""
        return Unknown(
            reason=f"unknown: {', '.join(lacking)} of {model.id} {verb} not known{why}", low=published, high=published
        )
    embedding, head = _ends(model)
    norms, other = _norms(model), _other(model)
    by = dict.fromkeys(("attention", "ffn", "experts", "shared_experts", "router"), 0)
    for matrix in linear_layers(model):
        by[part(matrix.name)] += matrix.parameters
    text = embedding + head + norms + other + sum(by.values())
    return Parameters(
        total=text + (model.vision_parameters or 0),
        active=text - _unvisited(model, by["experts"]),
        embedding=embedding,
        head=head,
        norms=norms,
        other=other,
        vision=model.vision_parameters or 0,
        layers=model.layers or 0,
        **by,
    )


def linear_layers(model: ModelFacts) -> list[Matrix]:
    """Every matrix in the blocks, without the embedding and the head; [] where the dimensions are unknown."""
    if missing(model):
        return []
    hidden = model.hidden_size or 0
    found = [matrix for attention in model.attention for matrix in _attention(attention, hidden)]
    dense = _dense(model)
    if dense:
        found += _ffn("", hidden, model.intermediate_size or 0, dense, model.gated_ffn)
    if model.experts:
        found += _experts(model.experts, hidden, model.gated_ffn)
    return found


def part(name: str) -> str:
    """The field of `Parameters` that counts a matrix of this name."""
    if name.startswith(EXPERTS):
        return "experts"
    if name.startswith(SHARED) or name in LATENT:
        return "shared_experts"
    if name in ("gate", "shared_expert_gate"):
        return "router"
    return "ffn" if name in ("gate_proj", "up_proj", "down_proj") else "attention"


def _attention(attention: Attention, hidden: int) -> list[Matrix]:
    shapes = {"mla": _mla, "linear": _delta_net}.get(attention.kind, _grouped)(attention, hidden)
    return [Matrix(name, inputs, outputs, attention.layers) for name, inputs, outputs in shapes]


def _grouped(attention: Attention, hidden: int) -> list[tuple[str, int, int]]:
    width, value = attention.head_dim, attention.value_head_dim or attention.head_dim
    queries = attention.heads * width * (2 if attention.output_gate else 1)
    return [
        ("q_proj", hidden, queries),
        ("k_proj", hidden, attention.kv_heads * width),
        ("v_proj", hidden, attention.kv_heads * value),
        ("o_proj", attention.heads * value, hidden),
    ]


def _mla(attention: Attention, hidden: int) -> list[tuple[str, int, int]]:
    """DeepseekV3Attention, with the indexer of V3.2 where there is one."""
    rope, latent = attention.rope_head_dim or 0, attention.kv_lora_rank or 0
    value = attention.value_head_dim or attention.head_dim
    queries, rank = attention.heads * (attention.head_dim + rope), attention.q_lora_rank
    found = [("q_a_proj", hidden, rank), ("q_b_proj", rank, queries)] if rank else [("q_proj", hidden, queries)]
    found += [
        ("kv_a_proj_with_mqa", hidden, latent + rope),
        ("kv_b_proj", latent, attention.heads * (attention.head_dim + value)),
        ("o_proj", attention.heads * value, hidden),
    ]
    if attention.index_heads and attention.index_head_dim:
        found += [
            ("indexer.wq_b", rank or hidden, attention.index_heads * attention.index_head_dim),
            ("indexer.wk", hidden, attention.index_head_dim),
            ("indexer.weights_proj", hidden, attention.index_heads),
        ]
    return found


def _delta_net(attention: Attention, hidden: int) -> list[tuple[str, int, int]]:
    """Gated DeltaNet of Qwen3-Next and Qwen3.5, or Mamba 2."""
    keys, values = _widths(attention)
    if attention.mamba:
        return [("in_proj", hidden, 2 * values + 2 * keys + attention.heads), ("out_proj", values, hidden)]
    return [
        ("in_proj_qkv", hidden, 2 * keys + values),
        ("in_proj_z", hidden, values),
        ("in_proj_b", hidden, attention.heads),
        ("in_proj_a", hidden, attention.heads),
        ("out_proj", values, hidden),
    ]


def _widths(attention: Attention) -> tuple[int, int]:
    """Of all keys and of all values of a linear layer."""
    value = attention.value_head_dim or attention.head_dim
    return attention.kv_heads * attention.head_dim, attention.heads * value


def _ffn(prefix: str, hidden: int, width: int, count: int, gated: bool) -> list[Matrix]:
    gate = [Matrix(f"{prefix}gate_proj", hidden, width, count)] if gated else []
    return [*gate, Matrix(f"{prefix}up_proj", hidden, width, count), Matrix(f"{prefix}down_proj", width, hidden, count)]


def _experts(experts: Experts, hidden: int, gated: bool) -> list[Matrix]:
    found, width = [Matrix("gate", hidden, experts.routed, experts.layers)], experts.latent_size or hidden
    found += _ffn(EXPERTS, width, experts.intermediate_size, experts.layers * experts.routed, gated)
    if experts.latent_size:
        found.append(Matrix(LATENT[0], hidden, experts.latent_size, experts.layers))
        found.append(Matrix(LATENT[1], experts.latent_size, hidden, experts.layers))
    if experts.shared_intermediate_size:
        found += _ffn(SHARED, hidden, experts.shared_intermediate_size, experts.layers, gated)
    if experts.shared_gate:
        found.append(Matrix("shared_expert_gate", hidden, 1, experts.layers))
    return found


def _unvisited(model: ModelFacts, matrices: int) -> int:
    """Parameters of routed experts that one token does not meet."""
    if model.experts is None:
        return 0
    experts = model.experts
    idle = experts.routed - experts.active
    biases = _expert_biases(experts, model.hidden_size or 0, model.gated_ffn)
    return (matrices // experts.routed + biases * experts.layers) * idle


def _expert_biases(experts: Experts, hidden: int, gated: bool) -> int:
    return hidden + experts.intermediate_size * (2 if gated else 1) if experts.bias else 0


def _ends(model: ModelFacts) -> tuple[int, int]:
    """Embedding and head."""
    vocab, hidden = model.vocab_size or 0, model.hidden_size or 0
    head = (0 if model.tie_word_embeddings else vocab * hidden) + (vocab if model.head_bias else 0)
    return (vocab + model.learned_positions) * hidden, head


def _norms(model: ModelFacts) -> int:
    each = (model.hidden_size or 0) * (2 if model.norm_bias else 1)
    outside = ((model.layers or 0) * model.norms_per_layer + 1) * each
    return outside + sum(attention.layers * _inner_norms(attention) for attention in model.attention)


def _inner_norms(attention: Attention) -> int:
    if attention.kind == "mla":
        index = 2 * (attention.index_head_dim or 0)
        return (attention.q_lora_rank or 0) + (attention.kv_lora_rank or 0) + index
    if attention.kind == "linear":
        return _widths(attention)[1] if attention.mamba else attention.value_head_dim or attention.head_dim
    return 2 * attention.head_dim if attention.qk_norm else 0


def _other(model: ModelFacts) -> int:
    hidden, wide = model.hidden_size or 0, 2 if model.gated_ffn else 1
    found = sum(attention.layers * _attention_biases(attention, hidden) for attention in model.attention)
    experts = model.experts
    if model.ffn_bias:
        found += _dense(model) * ((model.intermediate_size or 0) * wide + hidden)
    if experts:
        found += experts.layers * experts.routed * _expert_biases(experts, hidden, model.gated_ffn)
        found += experts.layers * experts.routed if experts.router_bias else 0
    return found


def _attention_biases(attention: Attention, hidden: int) -> int:
    if attention.kind == "linear":
        keys, values = _widths(attention)
        channels, kernel = 2 * keys + values, attention.conv_kernel or 0
        if attention.mamba:  # the convolution has a bias; A, D and the step's bias per head
            return channels * (kernel + 1) + 3 * attention.heads
        return channels * kernel + 2 * attention.heads
    found = attention.heads if attention.sinks else 0
    if attention.bias:
        found += sum(outputs for name, _, outputs in _grouped(attention, hidden) if name != "o_proj")
    return found + (hidden if attention.output_bias else 0)
