"""An adapter as its folder describes it: PEFT's settings, and the names of its tensors.

    adapter = _adapter.read(source.adapter)
    problems = refuses(adapter, LORA)

The names are read as well because PEFT does not write down everything: after the vocabulary has grown, embedding and
head are in the file, and no setting says so.
"""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.engines.base import Adapter
from orchestrator.errors import InputError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_VARIANTS = ("lora_bias", "alora_invocation_tokens", "layer_replication", "use_qalora", "use_bdlora")
_VOCABULARY = ("embed_tokens", "lm_head", "token_adapter", "wte", "word_embeddings")


def read(folder: Path) -> Adapter:
    """What decides whether it can be served. Raises InputError for a folder that is not an adapter of PEFT."""
    config, names = settings(folder), tensor_names(folder)
    whole = [name for name in names if ".lora_" not in name]
    return Adapter(
        rank=max([config["r"], *(config.get("rank_pattern") or {}).values()]),
        alpha=config["lora_alpha"],
        use_rslora=bool(config.get("use_rslora")),
        use_dora=bool(config.get("use_dora")),
        init_lora_weights=config.get("init_lora_weights", True),
        modules_to_save=tuple(config.get("modules_to_save") or ()),
        bias=config.get("bias", "none"),
        resized_vocabulary=any(part in name for name in whole for part in _VOCABULARY),
        alpha_pattern=bool(config.get("alpha_pattern")),
        rank_pattern=bool(config.get("rank_pattern")),
        target_modules=tuple(sorted({_module(name) for name in names if name not in whole})),
        variants=tuple(name for name in _VARIANTS if config.get(name)),
    )


def _module(name: str) -> str:
    """`q_proj` of `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`."""
    return name.partition(".lora_")[0].rpartition(".")[2]


def settings(folder: Path) -> dict[str, Any]:
    """PEFT's own settings of the adapter. Raises InputError when there are none, or those of another method."""
    try:
        found: dict[str, Any] = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} is not an adapter: its {CONFIG} cannot be read: {error}") from error
    if found.get("peft_type") != "LORA":
        raise InputError(f"the adapter in {folder} is {found.get('peft_type')!r}; LORA can be exported")
    return found


def tensor_names(folder: Path) -> Sequence[str]:
    """Names in the adapter's file, without its weights. Raises InputError for a file that is not safetensors."""
    return sorted(header(folder / WEIGHTS))


def header(path: Path) -> dict[str, Any]:
    """Tensor -> its dtype and shape, of a safetensors file: JSON, after its length in 8 bytes. Raises InputError."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            found: dict[str, Any] = json.loads(file.read(length))
    except (OSError, ValueError, struct.error) as error:
        raise InputError(f"the weights in {path} cannot be read: {error}", next_step="make them again") from error
    found.pop("__metadata__", None)
    return found


def was_trained_quantized(folder: Path) -> bool:
    """Whether the base was quantized while the adapter was trained (QLoRA)."""
    training = folder / "training.json"
    return training.exists() and bool(json.loads(training.read_text()).get("quantization"))


def changes_base(adapter: Adapter) -> bool:
    """Whether its initialization took the adapter's start out of the base's weights, so that it fits no other base.

    Of PEFT's ways to begin: PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA do; EVA, MiCA, gaussian and orthogonal do not.
    """
    return str(adapter.init_lora_weights).lower().startswith(_CHANGES_BASE)
