"""What an open model is made of, as far as planning needs it: its dimensions, and what follows from them exactly."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from orchestrator.config import Model
from orchestrator.units import Tokens

Count = Annotated[int, BeforeValidator(lambda value: int(Tokens.parse(value)))]
"""A number that may be written as `8.03B`."""
AttentionKind = Literal["full", "sliding", "chunked", "linear", "mla"]


class Attention(Model):
    """Layers that attend alike. A model has one entry per kind; their `layers` add up to the model's."""

    kind: AttentionKind = "full"
    """full (MHA, GQA, MQA), sliding window, chunked (local blocks), linear (a state of fixed size), mla (latent)."""
    layers: int = Field(gt=0)
    """How many layers."""
    heads: int = Field(gt=0)
    """Query heads; of a linear layer, its value heads."""
    kv_heads: int = Field(gt=0)
    """Key and value heads; of a linear layer, its key heads."""
    head_dim: int = Field(gt=0)
    """Of queries and keys; of MLA without the rotary part."""
    value_head_dim: int | None = None
    """Where it is not head_dim."""
    window: int | None = None
    """Tokens that a sliding or chunked layer keeps."""
    output_gate: bool = False
    """The query projection is twice as wide, for a gate on the output."""
    bias: bool = False
    """The q, k and v projections have a bias."""
    output_bias: bool = False
    """The output projection has one too."""
    sinks: bool = False
    """Each query head has a learned weight for attending to nothing."""
    qk_norm: bool = False
    """Queries and keys are normalised, with one weight per dimension of a head."""
    q_lora_rank: int | None = None
    """MLA: rank of the query's down-projection; None: one full projection."""
    kv_lora_rank: int | None = None
    """MLA: width of the latent that is cached for each token."""
    rope_head_dim: int | None = None
    """MLA: width of the rotary key that is cached beside it."""
    conv_kernel: int | None = None
    """Linear: width of the short convolution, whose last inputs are part of the state."""
    mamba: bool = False
    """Linear: Mamba 2, whose keys are its groups' states, rather than Gated DeltaNet."""
    index_heads: int | None = None
    """Sparse attention (DSA): query heads of the indexer that chooses the tokens to attend to."""
    index_head_dim: int | None = None
    """Sparse attention: width of the key that the indexer caches for each token."""


class Experts(Model):
    """A mixture of experts."""

    routed: int = Field(gt=0)
    """Experts of one layer."""
    active: int = Field(gt=0)
    """Experts that one token visits."""
    intermediate_size: int = Field(gt=0)
    """FFN width of one expert."""
    shared_intermediate_size: int = 0
    """FFN width that every token visits, all shared experts together; 0: none."""
    layers: int = Field(gt=0)
    """Layers that have experts; the others are dense, of the model's own intermediate_size."""
    latent_size: int | None = None
    """Width that routed experts work in where it is not the residual stream's; two matrices a layer lead there."""
    shared_gate: bool = False
    """A learned gate, one column, weighs the shared expert."""
    router_bias: bool = False
    """The router has one number per expert beside its matrix."""
    bias: bool = False
    """The experts' matrices have a bias."""


class ModelFacts(Model):
    """A model's dimensions and what is known about it. None is unknown, never a guess."""

    id: str
    """Its name on the hub."""
    aliases: list[str] = []
    """Other names of the same weights' shape, such as an instruct variant."""
    family: str | None = None
    """Such as Qwen3.5."""
    layers: int | None = None
    """Transformer blocks."""
    hidden_size: int | None = None
    """Width of the residual stream."""
    intermediate_size: int | None = None
    """FFN width of the dense layers."""
    ffn_layers: int | None = None
    """Layers with an FFN, where a layer is either attention or FFN (then norms_per_layer is 1); None: all."""
    gated_ffn: bool = True
    """Three matrices an FFN (SwiGLU) rather than two."""
    ffn_bias: bool = False
    """The FFN's matrices have a bias."""
    norms_per_layer: int = 2
    """Norms over the residual stream in a block: 2, in Gemma 2 and 3 four, in Phi-1.5 one."""
    norm_bias: bool = False
    """LayerNorm with a bias rather than RMSNorm."""
    learned_positions: int = 0
    """Rows of a learned position embedding; 0: rotary, ALiBi or none."""
    attention: list[Attention] = []
    """By kind; empty: unknown."""
    experts: Experts | None = None
    """None: a dense model."""
    vocab_size: int | None = None
    """Rows of the embedding."""
    tie_word_embeddings: bool = False
    """The output head is the embedding."""
    head_bias: bool = False
    """The output head has a bias."""
    max_context: int | None = None
    """Positions of the model's own configuration."""
    published_parameters: Count | None = None
    """Total, as its authors say."""
    published_active_parameters: Count | None = None
    """Per token, as its authors say."""
    vision_parameters: Count | None = None
    """Of the vision tower and its projector, which are not part of the dimensions above; None: none, or unknown."""
    native_dtype: str | None = None
    """Format of the published weights where it is not bf16 or fp16: fp8, int4, mxfp4."""
    multimodal: bool = False
    """Reads more than text; its vision tower is not part of the dimensions above."""
    license: str | None = None
    """Key in licenses.yaml."""
    base_licenses: list[str] = []
    """Licences of the model that it was made from, whose terms still apply."""
    notes: str | None = None
    """What to mind."""
    source: str | None = None
    """Where this was read."""
    date: str | None = None
    """When."""
    verified: bool = False
    """Whether the dimensions were read in the model's own configuration."""
