"""The attention of a model by kind of layer, from the fields of its config.json."""

from collections import Counter
from typing import Any

from orchestrator.catalog.architectures import Traits
from orchestrator.catalog.fields import Fields
from orchestrator.catalog.models import Attention, AttentionKind

_KINDS: dict[str, AttentionKind] = {
    "full_attention": "full",
    "attention": "full",
    "global": "full",
    "sliding_attention": "sliding",
    "local": "sliding",
    "chunked_attention": "chunked",
    "linear_attention": "linear",
}
GEMMA_HEAD_DIM = 256
"""head_dim of Gemma configurations that leave it to the default."""


def attention(reader: Fields, kind: str, traits: Traits, layers: int, hidden: int) -> list[Attention]:
    """One entry per kind; raises InputError where the heads or the list of layers contradict the rest."""
    if traits.latent:
        return [_latent(reader, layers)]
    counts = _mixers(reader) if traits.mixers else _layers(reader, kind, traits, layers)
    heads = reader.count("num_attention_heads")
    kv_heads = reader.count("num_key_value_heads", heads)
    width = _head_dim(reader, kind, heads, hidden)
    if heads % kv_heads:
        raise reader.lie(f"{heads} query heads cannot share {kv_heads} key and value heads")
    common: dict[str, Any] = {
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": width,
        "value_head_dim": reader.get("v_head_dim"),
        "output_gate": traits.gate and reader.get("attn_output_gate") is not False,
        "bias": traits.qkv_bias or reader.has("attention_bias", "qkv_bias"),
        "output_bias": traits.biases or (traits.output_bias and reader.has("attention_bias")),
        "qk_norm": traits.qk_norm or reader.has("use_qk_norm"),
        "sinks": traits.sinks,
    }
    if kind.startswith("llama4"):
        common["qk_norm"] = False  # normalised without weights
    found = []
    for name, count in counts.items():
        if name == "linear":
            found.append(_mamba(reader, count) if traits.mixers else _linear(reader, count))
        elif name == "full":
            found.append(Attention(kind="full", layers=count, **common))
        else:
            found.append(Attention(kind=name, layers=count, window=_window(reader, name), **(common | _swa(reader))))
    return found


def _layers(reader: Fields, kind: str, traits: Traits, layers: int) -> dict[AttentionKind, int]:
    """Kind -> number of layers, as layer_types says, else as the architecture has it."""
    named = reader.get("layer_types")
    if named is not None:
        if len(named) != layers:
            raise reader.lie(f"layer_types has {len(named)} entries, num_hidden_layers is {layers}")
        strangers = sorted({name for name in named if name not in _KINDS})
        if strangers:
            raise reader.lie(f"layer_types has {strangers[0]!r}, which is not known")
        return dict(Counter(_KINDS[name] for name in named))
    if reader.get("hybrid_layer_pattern"):  # MiMo-V2: 1 is a sliding layer
        pattern = reader.get("hybrid_layer_pattern")
        if len(pattern) != layers:
            raise reader.lie(f"hybrid_layer_pattern has {len(pattern)} entries, num_hidden_layers is {layers}")
        return {"sliding": sum(pattern), "full": layers - sum(pattern)}
    if traits.linear:
        return _split("linear", layers, reader.count("full_attention_interval", 4))
    if kind.startswith("llama4"):
        return _split("chunked", layers, reader.count("no_rope_layer_interval", 4))
    every = reader.get("sliding_window_pattern") or traits.window_every
    if every and reader.has("sliding_window"):
        return _split("sliding", layers, int(every))
    if reader.has("sliding_window") and reader.get("use_sliding_window") is not False and kind == "mistral":
        return {"sliding": layers}
    return {"full": layers}


def mixers(reader: Fields) -> list[str]:
    """Each layer's only part: mamba, attention, moe or mlp."""
    named = reader.get("layers_block_type")
    if named is None:
        letters = {"M": "mamba", "*": "attention", "E": "moe", "-": "mlp"}
        named = [letters.get(letter, letter) for letter in reader.get("hybrid_override_pattern") or ""]
    strangers = [name for name in named if name not in ("mamba", "attention", "moe", "mlp")]
    layers = reader.count("num_hidden_layers", len(named) or None)
    if strangers or len(named) != layers:
        raise reader.lie(
            f"the pattern of layers has {strangers[0]!r}"
            if strangers
            else f"{len(named)} layers named, {layers} counted"
        )
    return list(named)


def _mixers(reader: Fields) -> dict[AttentionKind, int]:
    named = mixers(reader)
    counts: dict[AttentionKind, int] = {"linear": named.count("mamba"), "full": named.count("attention")}
    return {kind: count for kind, count in counts.items() if count}


def _split(other: AttentionKind, layers: int, every: int) -> dict[AttentionKind, int]:
    full = layers // every
    return {other: layers - full, "full": full} if full else {other: layers}


def _window(reader: Fields, kind: str) -> int:
    return reader.count("attention_chunk_size") if kind == "chunked" else reader.count("sliding_window")


def _swa(reader: Fields) -> dict[str, int]:
    """MiMo-V2 names the heads of its sliding layers apart."""
    names = {"heads": "swa_num_attention_heads", "kv_heads": "swa_num_key_value_heads", "head_dim": "swa_head_dim"}
    found = {ours: reader.count(theirs) for ours, theirs in names.items() if reader.get(theirs)}
    return found | ({"value_head_dim": reader.count("swa_v_head_dim")} if reader.get("swa_v_head_dim") else {})


def _head_dim(reader: Fields, kind: str, heads: int, hidden: int) -> int:
    given = reader.get("head_dim")
    if given is None and kind.startswith("gemma"):
        return GEMMA_HEAD_DIM
    if given is None and hidden % heads:
        raise reader.lie(f"hidden_size {hidden} is not divisible by {heads} heads, and head_dim is not given")
    width = reader.count("head_dim", hidden // heads)
    if not hidden / 8 <= heads * width <= hidden * 8 or width > 1024:
        raise reader.lie(f"{heads} heads of head_dim {width} do not fit hidden_size {hidden}")
    return width


def _latent(reader: Fields, layers: int) -> Attention:
    heads = reader.count("num_attention_heads")
    return Attention(
        kind="mla",
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_dim=reader.count("qk_nope_head_dim"),
        value_head_dim=reader.count("v_head_dim"),
        rope_head_dim=reader.count("qk_rope_head_dim"),
        kv_lora_rank=reader.count("kv_lora_rank"),
        q_lora_rank=reader.count("q_lora_rank") if reader.get("q_lora_rank") else None,
        index_heads=reader.get("index_n_heads"),
        index_head_dim=reader.get("index_head_dim"),
    )


def _linear(reader: Fields, layers: int) -> Attention:
    heads, keys = reader.count("linear_num_value_heads"), reader.count("linear_num_key_heads")
    if heads % keys:
        raise reader.lie(f"{heads} value heads of the linear layers cannot share {keys} key heads")
    return Attention(
        kind="linear",
        layers=layers,
        heads=heads,
        kv_heads=keys,
        head_dim=reader.count("linear_key_head_dim"),
        value_head_dim=reader.count("linear_value_head_dim"),
        conv_kernel=reader.count("linear_conv_kernel_dim"),
    )


def _mamba(reader: Fields, layers: int) -> Attention:
    """Mamba 2: a group's B and C are key and query, as wide as the state; x is the value."""
    return Attention(
        kind="linear",
        mamba=True,
        layers=layers,
        heads=reader.count("mamba_num_heads"),
        kv_heads=reader.count("n_groups"),
        head_dim=reader.count("ssm_state_size"),
        value_head_dim=reader.count("mamba_head_dim"),
        conv_kernel=reader.count("conv_kernel"),
    )
