"""ModelFacts of a model on this machine, from its `config.json`: a folder, or a hub id in the local cache.

Nothing is fetched. The field names are those of transformers; a `model_type` that is not known is read like Llama where
it has the standard fields and nothing that points to another architecture. A configuration that contradicts itself, or
the size of the weights beside it, is an InputError.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

from orchestrator.catalog.architectures import STRANGE, TRAITS, Traits
from orchestrator.catalog.attention import attention, mixers
from orchestrator.catalog.fields import Fields
from orchestrator.catalog.models import Experts, ModelFacts
from orchestrator.catalog.parameters import parameters
from orchestrator.catalog.unknown import Unknown
from orchestrator.errors import InputError

TOLERANCE = 0.04
"""How far the weights beside a configuration may be from the count: buffers, or a head that is stored although tied."""


def from_folder(folder: Path, name: str | None = None) -> ModelFacts:
    """Raises InputError where there is no usable config.json, or it contradicts itself or the weights beside it."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"no config.json in {folder}", next_step="name the folder that holds the model") from error
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    if not isinstance(config, dict):
        raise InputError(f"{path}: an object is needed, found {type(config).__name__}")
    facts = from_config(config, name or str(folder), str(path))
    _check_size(facts, config, folder)
    return facts.model_copy(update={"license": card_license(folder)})


def from_cache(model: str) -> ModelFacts | None:
    """Of a hub id whose config.json is in the local cache ($HF_HUB_CACHE, $HF_HOME/hub); None: it is not there."""
    if model.count("/") != 1:
        return None
    snapshots = cache() / f"models--{model.replace('/', '--')}" / "snapshots"
    found = sorted(snapshots.glob("*/config.json"), key=lambda path: path.stat().st_mtime) if snapshots.is_dir() else []
    return from_folder(found[-1].parent, model) if found else None


def find(name: str) -> ModelFacts | None:
    """Of a folder with a config.json, or of a hub id in the local cache; None: neither is there."""
    folder = Path(name).expanduser()
    return from_folder(folder, name) if (folder / "config.json").is_file() else from_cache(name)


def card_license(folder: Path) -> str | None:
    """The licence that the model's card names in its front matter; None: no card, or it names none."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    front = text.split("\n---", 1)[0] if text.startswith("---") else ""
    named = dict(re.findall(r"(?m)^(license|license_name):\s*[\"']?([^\s\"']+)", front))
    return named.get("license_name") if named.get("license") == "other" else named.get("license")


def cache() -> Path:
    """Where the hub's library keeps what it has fetched."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()


def from_config(config: dict[str, Any], name: str, file: str = "config.json") -> ModelFacts:
    """Of a configuration that was read already. Raises InputError where it contradicts itself."""
    outer, text = config, config.get("text_config") or config.get("llm_config") or config
    kind = str(text.get("model_type") or outer.get("model_type") or "")
    reader = Fields(text, file)
    traits, strange = TRAITS.get(kind), _strange(reader)
    if traits is None and strange:
        return _unknown(
            outer, text, name, file, f"model_type {kind!r} is not known, and {strange} is no plain transformer's"
        )
    if traits is not None and strange and not (traits.experts or traits.latent or traits.linear):
        raise reader.lie(f"model_type {kind!r} has no {strange}, found {reader.get(strange)!r}")
    if traits is not None and _other_class(outer, text, traits):
        raise reader.lie(f"model_type {kind!r} is not built like its architecture {_classes(outer, text)[0]!r}")
    read_as_plain = None if traits else f"model_type {kind!r} is not known; its standard fields were read like Llama's"
    traits = traits or Traits()
    parts = mixers(reader) if traits.mixers else None
    layers, hidden = len(parts) if parts else reader.count("num_hidden_layers"), reader.count("hidden_size")
    experts = _experts(reader, traits, layers) if parts is None or "moe" in parts else None
    ffn = layers if parts is None else layers - parts.count("mamba") - parts.count("attention")
    dense = experts is None or experts.layers < ffn
    return ModelFacts(
        id=name,
        family=kind or None,
        layers=layers,
        hidden_size=hidden,
        intermediate_size=_width(reader, kind) if dense else None,
        ffn_layers=None if parts is None else ffn,
        gated_ffn=traits.gated,
        ffn_bias=traits.biases or bool(text.get("mlp_bias")),
        norms_per_layer=traits.norms,
        norm_bias=traits.biases,
        attention=attention(reader, kind, traits, layers, hidden),
        experts=experts,
        vocab_size=reader.count("vocab_size"),
        tie_word_embeddings=bool(text.get("tie_word_embeddings", outer.get("tie_word_embeddings", traits.tied))),
        head_bias=traits.head_bias,
        max_context=text.get("max_position_embeddings"),
        multimodal="vision_config" in outer or "audio_config" in outer,
        native_dtype=_native(outer.get("quantization_config") or text.get("quantization_config")),
        notes=read_as_plain,
        source=file,
        verified=read_as_plain is None,
    )


def _unknown(outer: dict[str, Any], text: dict[str, Any], name: str, file: str, why: str) -> ModelFacts:
    """What is certain about an architecture that nobody described here: no attention, so no count."""
    numbers = {field: text[field] for field in ("hidden_size", "vocab_size") if isinstance(text.get(field), int)}
    return ModelFacts(
        id=name, family=text.get("model_type"), multimodal="vision_config" in outer, notes=why, source=file, **numbers
    )


def _classes(*parts: dict[str, Any]) -> list[str]:
    lists = [part["architectures"] for part in parts if isinstance(part.get("architectures"), list)]
    return [str(name) for name in lists[0]] if lists else []


def _other_class(outer: dict[str, Any], text: dict[str, Any], traits: Traits) -> bool:
    """Whether `architectures` names a class of another known architecture: Qwen3ForCausalLM for model_type llama."""
    known = {kind.replace("_", ""): found for kind, found in TRAITS.items()}
    names = [re.sub(r"For(CausalLM|ConditionalGeneration)$", "", name).lower() for name in _classes(outer, text)]
    return any(known.get(name, traits) != traits for name in names)


def _strange(reader: Fields) -> str | None:
    """A field that says that this is no plain transformer."""
    return next((name for name in STRANGE if reader.has(name)), None)


def _width(reader: Fields, kind: str) -> int:
    """FFN width of the dense layers; Llama 4 names it apart from that of its experts."""
    return reader.count("intermediate_size_mlp") if kind == "llama4_text" else reader.count("intermediate_size")


def _experts(reader: Fields, traits: Traits, layers: int) -> Experts | None:
    if not traits.experts:
        return None
    names = ("n_routed_experts", "num_local_experts", "num_experts")
    routed = next((reader.count(name) for name in names if reader.get(name)), None)
    if routed is None:
        raise reader.lie(f"a mixture of experts needs one of {', '.join(names)}")
    active = reader.count("num_experts_per_tok")
    if active > routed:
        raise reader.lie(f"num_experts_per_tok {active} is more than the {routed} experts")
    width = reader.count("moe_intermediate_size", reader.get("intermediate_size"))
    names_shared = ("shared_expert_intermediate_size", "moe_shared_expert_intermediate_size")
    shared = next((reader.count(name) for name in names_shared if reader.get(name)), None)
    return Experts(
        routed=routed,
        active=active,
        intermediate_size=width,
        shared_intermediate_size=shared or (reader.get("n_shared_experts") or traits.shared) * width,
        latent_size=reader.get("moe_latent_size"),
        layers=mixers(reader).count("moe") if traits.mixers else _expert_layers(reader, layers),
        shared_gate=reader.has("shared_expert_intermediate_size"),
        router_bias=traits.router_bias,
        bias=traits.expert_bias,
    )


def _expert_layers(reader: Fields, layers: int) -> int:
    """How many layers have experts: all, less the first dense ones, or every n-th."""
    pattern = reader.get("moe_layer_freq")
    if isinstance(pattern, list):
        if len(pattern) != layers:
            raise reader.lie(f"moe_layer_freq has {len(pattern)} entries, num_hidden_layers is {layers}")
        return sum(map(bool, pattern))
    chosen = reader.get("moe_layers")
    if isinstance(chosen, list) and chosen:
        return len(chosen)
    step = reader.get("interleave_moe_layer_step") or reader.get("decoder_sparse_step") or pattern or 1
    dense = max(reader.get("first_k_dense_replace") or 0, len(reader.get("mlp_only_layers") or []))
    if dense >= layers:
        raise reader.lie(f"{dense} dense layers leave none of {layers} for the experts")
    return (layers - dense) // int(step)


def _native(quantization: Any) -> str | None:
    """Format of quantized weights, as engines call it."""
    if not isinstance(quantization, dict):
        return None
    method = str(quantization.get("quant_method") or "")
    bits = quantization.get("bits") or (4 if quantization.get("load_in_4bit") else None)
    return f"{method}-{bits}bit" if bits else method or None


def _check_size(facts: ModelFacts, config: dict[str, Any], folder: Path) -> None:
    """The weights of 16 or 32 bit beside the configuration have the size that its dimensions give."""
    count, size = parameters(facts), _total_size(folder)
    if isinstance(count, Unknown) or size is None or facts.native_dtype or facts.multimodal:
        return
    text = config.get("text_config") or config
    dtype = str(text.get("dtype") or text.get("torch_dtype") or config.get("torch_dtype") or "bfloat16")
    each = 4 if dtype.endswith("float32") else 2
    tied = (facts.vocab_size or 0) * (facts.hidden_size or 0) if facts.tie_word_embeddings else 0
    low, high = count.total * each * (1 - TOLERANCE), (count.total + tied) * each * (1 + TOLERANCE)
    if not low <= size <= high:
        raise InputError(
            f"{folder / 'config.json'}: its dimensions give {count.total:,} parameters, {count.total * each:,} bytes in"
            f" {dtype}; the weights beside it have {size:,} bytes",
            next_step="the configuration belongs to another model, or the weights are incomplete or quantized",
        )


def _total_size(folder: Path) -> int | None:
    """Bytes of the weights, as the index of the files says, or of the only file; None: neither is there."""
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
        found = index["metadata"]["total_size"]
    except FileNotFoundError:
        single = folder / "model.safetensors"
        return single.stat().st_size if single.is_file() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return int(found) if isinstance(found, int | float) else None
