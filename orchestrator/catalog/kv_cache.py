"""Bytes that a sequence keeps on the accelerator while it is served: keys and values, and the recurrent state.

Full attention keeps heads x width x 2 for each token; MLA one latent, which tensor parallelism does not divide; a
sliding or chunked layer no more than its window, where the engine's cache manager knows of it (`hybrid`); a linear
layer keeps a state of fixed size instead.
"""

from typing import Literal

from orchestrator.catalog.models import Attention, ModelFacts

Layout = Literal["plain", "fp8_ds_mla"]
"""fp8_ds_mla: vLLM's for DeepSeek sparse attention: fp8 latent, four fp32 scales, the rotary key in bf16."""
INDEX_BYTES = 1
"""The indexer's key is kept in fp8, with one fp32 scale."""


def bytes_per_token(
    model: ModelFacts, dtype_bytes: float = 2, *, tensor: int = 1, hybrid: bool = True, layout: Layout = "plain"
) -> int:
    """Of one GPU for each further token of a long sequence; layers with a window count only without `hybrid`."""
    kinds = [found for found in model.attention if not (hybrid and _windowed(found)) and found.kind != "linear"]
    return sum(found.layers * _layer(found, dtype_bytes, tensor, layout) for found in kinds)


def kv_bytes(
    model: ModelFacts,
    tokens: int,
    dtype_bytes: float = 2,
    *,
    tensor: int = 1,
    hybrid: bool = True,
    layout: Layout = "plain",
) -> int:
    """Of one GPU for one sequence of so many tokens, without the recurrent state."""
    total = 0
    for found in model.attention:
        if found.kind != "linear":
            kept = min(tokens, found.window or tokens) if hybrid and _windowed(found) else tokens
            total += found.layers * kept * _layer(found, dtype_bytes, tensor, layout)
    return total


def state_bytes_per_sequence(
    model: ModelFacts, recurrent_bytes: float = 4, conv_bytes: float = 2, *, tensor: int = 1
) -> int:
    """Of one GPU for one sequence's linear layers; engines keep the recurrent part in fp32 unless told otherwise."""
    total = 0.0
    for found in model.attention:
        if found.kind == "linear":
            recurrent, conv = state_elements(found)
            total += found.layers * (recurrent * recurrent_bytes + conv * conv_bytes) / tensor
    return round(total)


def state_elements(attention: Attention) -> tuple[int, int]:
    """Numbers in one linear layer's recurrent state, heads x key width x value width, and in its convolution's."""
    value = attention.value_head_dim or attention.head_dim
    channels = 2 * attention.kv_heads * attention.head_dim + attention.heads * value
    return attention.heads * attention.head_dim * value, channels * (attention.conv_kernel or 0)


def _windowed(attention: Attention) -> bool:
    return attention.kind in ("sliding", "chunked") and attention.window is not None


def _layer(attention: Attention, dtype_bytes: float, tensor: int, layout: Layout) -> int:
    """Of one token in one layer."""
    if attention.kind == "mla":
        return _latent(attention, dtype_bytes, layout) + _index(attention, layout)
    heads = -(-attention.kv_heads // tensor)  # more GPUs than heads: each keeps a copy of one
    return round(heads * (attention.head_dim + (attention.value_head_dim or attention.head_dim)) * dtype_bytes)


def _latent(attention: Attention, dtype_bytes: float, layout: Layout) -> int:
    latent, rope = attention.kv_lora_rank or 0, attention.rope_head_dim or 0
    if layout == "fp8_ds_mla":
        return latent + 4 * (latent // 128) + 2 * rope
    return round((latent + rope) * dtype_bytes)


def _index(attention: Attention, layout: Layout) -> int:
    return attention.index_head_dim * INDEX_BYTES + 4 if attention.index_head_dim else 0
