"""What a GGUF file says of itself, and whether it is what it should be: its chat, its number format, its bits.

    made = _llama_cpp_gguf.read(folder / "model.gguf")
    problems = chat_problems(made, merged) + type_problems(made, "Q4_K_M")

Only the header is read; the weights stay on the disk.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import InputError

_CONTROL_TOKEN, _USER_DEFINED_TOKEN = 3, 4
_KEEPS_ITS_TYPE = "ffn_up"
"""Part of the names of the matrices that a quantization keeps in its own type; others it makes wider."""
# llama-quant.cpp: the type of each quantization that is not in its name, and what takes its place where the rows of a
# matrix are not a multiple of its block
_TYPES = {
    "IQ2_S": ("IQ2_XS",),
    "IQ2_M": ("IQ2_S",),
    "IQ3_XS": ("IQ3_S", "IQ3_XXS"),
    "IQ3_M": ("IQ3_S",),
    "MXFP4_MOE": ("MXFP4", "Q8_0"),
}
_INSTEAD = {
    **dict.fromkeys(("Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
}


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file."""

    name: str
    type: str
    """As ggml calls it, such as Q4_K."""
    shape: tuple[int, ...]
    """The length of a row first."""
    bytes: int
    offset: int
    """Of its data in the file."""

    @property
    def is_matrix(self) -> bool:
        """Whether it is one that quantizations make smaller."""
        return len(self.shape) > 1 and self.name.endswith(".weight")


@dataclass(frozen=True)
class Header:
    """What stands before the weights."""

    path: Path
    fields: Mapping[str, Any]
    """The reader's own."""
    tensors: Sequence[Tensor]

    def get(self, name: str) -> Any:
        """A field's value; None where the file has none."""
        return self.fields[name].contents() if name in self.fields else None

    @property
    def file_type(self) -> str:
        """The quantization that the file names, such as Q4_K_M."""
        import gguf

        known = {kind.value: kind.name for kind in gguf.LlamaFileType}
        number = self.get("general.file_type")
        return str(known.get(number, number)).removeprefix("MOSTLY_").removeprefix("ALL_")

    @property
    def types(self) -> dict[str, int]:
        """Number of tensors by type."""
        return dict(Counter(tensor.type for tensor in self.tensors).most_common())

    @property
    def bits_per_weight(self) -> float:
        """Over all tensors, with scales."""
        return (
            8 * sum(tensor.bytes for tensor in self.tensors) / sum(math.prod(tensor.shape) for tensor in self.tensors)
        )

    @property
    def weights_at(self) -> int:
        """Bytes before the first weight."""
        return min(tensor.offset for tensor in self.tensors)


def read(path: Path) -> Header:
    """Raises InputError for a file that is not GGUF, or was cut."""
    import gguf

    try:
        found = gguf.GGUFReader(path)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise InputError(f"{path} is not a whole GGUF file: {error}", next_step="export the model again") from error
    tensors = [
        Tensor(
            name=tensor.name,
            type=tensor.tensor_type.name,
            shape=tuple(map(int, tensor.shape)),
            bytes=int(tensor.n_bytes),
            offset=int(tensor.data_offset),
        )
        for tensor in found.tensors
    ]
    return Header(path, found.fields, tensors)


def calibration_tokens(importance_matrix: Path) -> int:
    """Tokens that an importance matrix was computed from: each of its matrices counts the rows that it was given."""
    import gguf

    counts = [one.data.max() for one in gguf.GGUFReader(importance_matrix).tensors if one.name.endswith(".counts")]
    return int(max(counts))


def chat_problems(made: Header, merged: Path) -> list[str]:
    """Where the file treats a chat's special tokens and template otherwise than the model's own folder does.

    A marker such as <|im_start|> that is typed as ordinary text is cut into pieces, and no prompt matches training.
    """
    config = json.loads((merged / "tokenizer_config.json").read_text())
    template = (merged / "chat_template.jinja").read_text()
    tokens = made.get("tokenizer.ggml.tokens") or []
    kind_of = dict(zip(tokens, made.get("tokenizer.ggml.token_type") or [], strict=True))
    problems = _wrong_tokens(kind_of, _markers(merged, template))
    if (made.get("tokenizer.chat_template") or "").strip() != template.strip():
        problems.append("its chat template is not the model's chat_template.jinja")
    end, wanted = made.get("tokenizer.ggml.eos_token_id"), _text(config.get("eos_token"))
    if end is None or tokens[end] != wanted:
        problems.append(f"its end token is {tokens[end] if end is not None else None!r}, not {wanted!r}")
    return problems + _vocabulary_problems(made, len(tokens))


def type_problems(made: Header, quantization: str) -> list[str]:
    """Where the file is not quantized as asked: by its own word, and by the types of its matrices."""
    problems = []
    if made.file_type != quantization:
        problems.append(f"it says that it is {made.file_type}, not {quantization}")
    telling = [one for one in made.tensors if _KEEPS_ITS_TYPE in one.name] or made.tensors
    wrong = [one for one in telling if one.is_matrix and one.type not in _allowed(quantization, one)]
    if wrong:
        named = f"{wrong[0].name} is {wrong[0].type}"
        problems.append(f"{len(wrong)} of its matrices are not in the type of {quantization}: {named}")
    return problems


def fallen_back(made: Header, quantization: str) -> dict[str, int]:
    """The matrices whose rows do not fit the quantization's type: number by the wider type that they got."""
    blocked = {kind for kind in _types(quantization) if kind in _INSTEAD}
    matrices = [one for one in made.tensors if one.is_matrix and blocked and one.shape[0] % 256]
    return dict(Counter(one.type for one in matrices).most_common())


def _types(quantization: str) -> tuple[str, ...]:
    """Q4_K_M -> Q4_K: the type of most of its matrices."""
    if quantization in _TYPES:
        return _TYPES[quantization]
    head, _, size = quantization.rpartition("_")
    return (head,) if head.endswith("_K") and size in ("S", "M", "L") else (quantization,)


def _allowed(quantization: str, tensor: Tensor) -> set[str]:
    """A row that a block does not divide is stored in another type, one that 32 does not divide in 16 bits; experts
    that were trained in MXFP4 (gpt-oss) stay in it.
    """
    own = set(_types(quantization))
    instead = {_INSTEAD[kind] for kind in own if kind in _INSTEAD and tensor.shape[0] % 256}
    narrow = {"F16"} if tensor.shape[0] % 32 else set()
    return own | instead | narrow | ({"MXFP4"} if "_exps" in tensor.name else set())


def _markers(merged: Path, template: str) -> dict[str, bool]:
    """The added tokens that the chat template writes -> whether the tokenizer calls them special."""
    added = json.loads((merged / "tokenizer.json").read_text())["added_tokens"]
    return {token["content"]: bool(token["special"]) for token in added if token["content"] in template}


def _wrong_tokens(kind_of: dict[str, int], markers: dict[str, bool]) -> list[str]:
    """Special markers must be control tokens; added ones that are not special may be user-defined."""
    allowed = {True: {_CONTROL_TOKEN}, False: {_CONTROL_TOKEN, _USER_DEFINED_TOKEN}}
    wrong = [token for token, special in markers.items() if kind_of.get(token) not in allowed[special]]
    return [f"{token!r} is not a control token but type {kind_of.get(token)}" for token in wrong]


def _vocabulary_problems(made: Header, tokens: int) -> list[str]:
    rows = next((one.shape[1] for one in made.tensors if one.name == "token_embd.weight"), tokens)
    return [] if rows == tokens else [f"it has {tokens} tokens for the {rows} rows of its embedding"]


def _text(token: Any) -> str:
    """A token is written as its text, or as an object with it."""
    return str(token["content"] if isinstance(token, dict) else token)
