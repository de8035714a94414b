"""Weights of a target as one of its GPUs holds them: by part, sharded as engines shard them."""

from orchestrator.catalog.models import ModelFacts
from orchestrator.catalog.parameters import Matrix, linear_layers, part
from orchestrator.planner.estimate import Unknown
from orchestrator.planner.serving.formats import weight_parts
from orchestrator.planner.serving.serving import Serving

REPLICATED = ("q_a_proj", "kv_a_proj_with_mqa", "indexer.wk", "indexer.weights_proj", "gate", "shared_expert_gate")
"""Matrices that every GPU of a tensor-parallel group holds whole: down-projections to a latent, and routers."""


def gpu_weights(model: ModelFacts, serving: Serving) -> dict[str, float] | Unknown:
    """Bytes on the fullest GPU, by part of `Parameters`."""
    whole = weight_parts(model, serving.format)
    if isinstance(whole, Unknown):
        return _at_least(whole, serving)
    shared = shares(model, serving)
    return {name: amount * shared[name] for name, amount in whole.items()}


def shares(model: ModelFacts, serving: Serving) -> dict[str, float]:
    """The part of each of the model's parts that one GPU holds."""
    layers = model.layers or 1
    stage = -(-layers // serving.stages) / layers
    spread = serving.shards * (serving.data if serving.expert_parallel else 1)
    cut = 1 / serving.shards
    return {
        "embedding": cut,  # of the first stage, and the head of the last: with more stages than one, not the same GPU
        "head": cut if serving.stages == 1 or model.tie_word_embeddings else 0.0,
        "attention": attention_share(model, serving.shards) * stage,
        "ffn": cut * stage,
        "experts": stage / spread,
        "shared_experts": cut * stage,
        "router": stage,
        "norms": stage,
        "other": stage,
        "vision": 1.0,
    }


def attention_share(model: ModelFacts, tensor: int) -> float:
    """The part of the attention's matrices that one GPU of a tensor-parallel group holds."""
    matrices = [found for found in linear_layers(model) if part(found.name) == "attention"]
    whole = sum(found.parameters for found in matrices)
    held = sum(found.parameters / shards(model, found, tensor) for found in matrices)
    return held / whole if whole else 1.0


def shards(model: ModelFacts, matrix: Matrix, tensor: int) -> int:
    """Over how many GPUs of a tensor-parallel group a matrix is cut: no further than there are KV heads for k and v."""
    if matrix.name in REPLICATED:
        return 1
    if matrix.name in ("k_proj", "v_proj"):
        return min(tensor, min(found.kv_heads for found in model.attention if found.kind != "linear"))
    return tensor


def _at_least(whole: Unknown, serving: Serving) -> Unknown:
    if whole.low is None or whole.high is None:
        return whole
    gpus = serving.shards * serving.stages * (serving.data if serving.expert_parallel else 1)
    return Unknown(reason=whole.reason, low=whole.low / gpus, high=whole.high / gpus * (1 if gpus == 1 else 1.3))
