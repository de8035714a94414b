"""Settings of a model's folder, written by transformers 5, as transformers 4 reads them.

An engine that pins transformers 4.57 does not start on the tokenizer's settings of transformers 5, and takes rotary
frequencies that it does not find for its own default, without a word (both seen with 4.57.3).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.errors import InputError

_LAYER_TYPES = {"full_attention", "sliding_attention"}


def rewrite(folder: Path) -> None:
    """Change config.json and tokenizer_config.json in place. Raises InputError for rotary settings without a name."""
    for name, changed in (("config.json", config), ("tokenizer_config.json", tokenizer_config)):
        path = folder / name
        values = changed(json.loads(path.read_text()))
        path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def config(values: Mapping[str, Any]) -> dict[str, Any]:
    """config.json with the older names of the rotary settings beside the new ones, in the text model's part, too."""
    found = {**_rotary(values), **values}
    if "text_config" in found:
        found["text_config"] = config(found["text_config"])
    return found


def tokenizer_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """tokenizer_config.json: special tokens without a role have another key, and the general class another name."""
    found = dict(values)
    if isinstance(found.get("extra_special_tokens"), list):
        found["additional_special_tokens"] = found.pop("extra_special_tokens")
    if found.get("tokenizer_class") == "TokenizersBackend":
        found["tokenizer_class"] = "PreTrainedTokenizerFast"
    return found


def _rotary(values: Mapping[str, Any]) -> dict[str, Any]:
    rotary = values.get("rope_parameters")
    if not rotary:
        return {}
    if "rope_type" in rotary:
        return _of_one_kind(rotary)
    if set(rotary) != _LAYER_TYPES:
        raise InputError(
            f"rotary settings of layers {', '.join(rotary)} have no name in transformers 4, which this engine uses",
            next_step="serve this model with vllm, llama_cpp or transformers",
        )
    return {**_of_one_kind(rotary["full_attention"]), "rope_local_base_freq": rotary["sliding_attention"]["rope_theta"]}


def _of_one_kind(rotary: Mapping[str, Any]) -> dict[str, Any]:
    scaling = {name: value for name, value in rotary.items() if name != "rope_theta"}
    found = {"rope_theta": rotary["rope_theta"]} if "rope_theta" in rotary else {}
    return found | ({"rope_scaling": scaling} if scaling["rope_type"] != "default" else {})
