"""What transformers' implementation of a `model_type` does that its config.json does not say."""

from orchestrator.config import Model


class Traits(Model):
    """Of one architecture; the defaults are Llama's."""

    gated: bool = True
    """Three matrices an FFN."""
    biases: bool = False
    """FFN, norms and output projection have biases."""
    qkv_bias: bool = False
    """q, k and v have a bias whatever the configuration says."""
    output_bias: bool = False
    """The output projection has one where attention_bias is set."""
    qk_norm: bool = False
    """Queries and keys are normalised."""
    norms: int = 2
    """Norms in a block."""
    tied: bool = False
    """The default of tie_word_embeddings."""
    head_bias: bool = False
    """The output head has a bias."""
    experts: bool = False
    """A mixture of experts."""
    shared: int = 0
    """Shared experts where the configuration does not count them."""
    router_bias: bool = False
    """The router has a number per expert beside its matrix."""
    expert_bias: bool = False
    """The experts have biases."""
    latent: bool = False
    """Multi-head latent attention."""
    linear: bool = False
    """Gated DeltaNet layers among those of full attention."""
    gate: bool = False
    """The query projection also makes a gate for the output."""
    sinks: bool = False
    """A learned weight per head for attending to nothing."""
    mixers: bool = False
    """A layer is either Mamba, attention, experts or a dense FFN, as a pattern says."""
    window_every: int = 0
    """Every n-th layer is full, the others have a window, where layer_types does not say; 0: all are full."""


_DEEPSEEK = Traits(experts=True, latent=True, router_bias=True)
_QWEN35 = Traits(linear=True, gate=True, qk_norm=True)
_GEMMA3 = Traits(norms=4, qk_norm=True, tied=True, window_every=6)

TRAITS: dict[str, Traits] = {
    "llama": Traits(),
    "mistral": Traits(),
    "ministral": Traits(),
    "mixtral": Traits(experts=True),
    "phi3": Traits(),
    "phi": Traits(gated=False, biases=True, qkv_bias=True, norms=1, head_bias=True),
    "qwen2": Traits(qkv_bias=True),
    "qwen2_moe": Traits(qkv_bias=True, experts=True),
    "qwen3": Traits(qk_norm=True),
    "qwen3_moe": Traits(qk_norm=True, experts=True),
    "qwen3_vl_text": Traits(qk_norm=True),
    "qwen3_vl_moe_text": Traits(qk_norm=True, experts=True),
    "qwen3_next": _QWEN35.model_copy(update={"experts": True}),
    "qwen3_5": _QWEN35,
    "qwen3_5_text": _QWEN35,
    "qwen3_5_moe": _QWEN35.model_copy(update={"experts": True}),
    "qwen3_5_moe_text": _QWEN35.model_copy(update={"experts": True}),
    "deepseek_v2": Traits(experts=True, latent=True),
    "deepseek_v3": _DEEPSEEK,
    "deepseek_v32": _DEEPSEEK,
    "kimi_k2": _DEEPSEEK,
    "glm_moe_dsa": _DEEPSEEK,
    "gemma": Traits(tied=True),
    "gemma2": Traits(norms=4, tied=True, window_every=2),
    "gemma3": _GEMMA3,
    "gemma3_text": _GEMMA3,
    "gpt_oss": Traits(
        qkv_bias=True, output_bias=True, experts=True, router_bias=True, expert_bias=True, sinks=True, window_every=2
    ),
    "llama4": Traits(experts=True, shared=1),
    "llama4_text": Traits(experts=True, shared=1),
    "mimo_v2_flash": Traits(experts=True, router_bias=True),
    "nemotron_h": Traits(gated=False, linear=True, experts=True, router_bias=True, norms=1, mixers=True),
    "mimo": Traits(qkv_bias=True),
}

STRANGE = (
    "n_routed_experts",
    "num_local_experts",
    "num_experts",
    "kv_lora_rank",
    "linear_num_value_heads",
    "mamba_num_heads",
    "ssm_state_size",
    "hybrid_override_pattern",
    "layers_block_type",
    "block_configs",
    "global_head_dim",
    "num_global_key_value_heads",
    "num_kv_shared_layers",
    "hidden_size_per_layer_input",
    "num_kv_heads_per_layer",
)
"""Fields that a plain transformer does not have."""
