"""Names of models and GPUs as people, tools and tables write them, brought to one form."""

import re
from collections.abc import Iterator, Mapping

from orchestrator import gpus

_FORMAT = re.compile(
    r"([-_.](unsloth[-_]bnb[-_]4bit|bnb[-_]4bit|gguf|awq|gptq([-_]int[48])?|fp8([-_](dynamic|kv|block))?|nvfp4|mxfp4|int[48]"
    r"|w[48]a(8|16)|quantized\.w[48]a(8|16)|bf16|mlx([-_]4bit)?))$",
    re.IGNORECASE,
)
_VARIANT = re.compile(r"[-_](instruct|chat|base|it|hf|pt)$", re.IGNORECASE)
_MAKERS = re.compile(r"\b(nvidia|amd|huawei|geforce|instinct|tesla|quadro)\b", re.IGNORECASE)


def plain(name: str) -> str:
    """Letters, digits and dots in lower case: `LLAMA3_70B` and `Llama-3-70B` are `llama370b`."""
    return re.sub(r"[^a-z0-9.]", "", _MAKERS.sub(" ", name).lower())


def model_keys(name: str) -> Iterator[str]:
    """Forms of a model's name, the most exact first: as it is, without its owner, its format, its variant."""
    text = name.strip().rstrip("/")
    yield plain(text)
    tail = text.rsplit("/", 1)[-1]
    yield plain(tail)
    for suffix in (_FORMAT, _FORMAT, _VARIANT, _FORMAT):  # `-bf16-GGUF`; `-Instruct-AWQ`
        tail = suffix.sub("", tail)
        yield plain(tail)
    yield plain(re.sub(r"\s*\(.*\)$", "", text))  # a remark, such as `(without MTP)`


def gpu_key(name: str, index: Mapping[str, str]) -> str | None:
    """The id that a GPU's name stands for in an index of normalised names, also by the words of a driver's name."""
    key = plain(name)
    if key in index:
        return index[key]
    memory = re.search(r"(\d+)\s*(GB|GiB)", name)
    kind = plain(gpus.kind(name, int(memory[1]) * 10**9 if memory else None))
    parts = [part for part in ("pcie", "nvl") if part in name.lower()]
    return next((index[found] for found in [*(kind + part for part in parts), kind] if found in index), None)
