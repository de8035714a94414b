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
_COUNT = re.compile(r"^\s*\d+\s*[x×*]\s*(?=[a-z])", re.IGNORECASE)
_MEMORY = re.compile(r"[-_ (]*\b(\d+)\s*(GB|GiB|G)\b\)?", re.IGNORECASE)


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


def without_variant(name: str) -> str:
    """A catalog's own name without `-pt` or `-Instruct`, as people shorten it: `gemma-3-4b`."""
    return _VARIANT.sub("", name.rsplit("/", 1)[-1])


def gpu_key(name: str, index: Mapping[str, str]) -> str | None:
    """The id that a GPU's name stands for in an index of normalised names, also by the words of a driver's name."""
    text = _COUNT.sub("", name)  # `8xH100`
    key, bare = plain(text), plain(_MEMORY.sub("", text))
    if key in index:
        return index[key]
    size = memory(text)
    kind = plain(gpus.kind(text, size))
    parts = [part for part in ("pcie", "nvl") if part in text.lower()]
    return next((index[found] for found in [*(kind + part for part in parts), kind, bare] if found in index), None)


def memory(name: str) -> int | None:
    """Bytes that a GPU's name speaks of, such as those of `RTX-4090-24GB`; None: it does not say."""
    found = _MEMORY.search(name)
    return int(found[1]) * 10**9 if found else None
