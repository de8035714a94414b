"""Formats of served weights: what a recipe's `quantization` word means in bits, and which parts stay in 16 bits.

Bits include scales and zero points. A Hugging Face checkpoint keeps embedding, head, norms and routers in 16 bits; a
GGUF file quantizes embedding and head too, and mixes types by tensor, which `bits` averages over the blocks.
"""

from functools import cache

from orchestrator.catalog.models import ModelFacts
from orchestrator.catalog.parameters import Parameters, parameters
from orchestrator.config import Model
from orchestrator.errors import InputError
from orchestrator.planner.estimate import Unknown
from orchestrator.plugins import nearest

PARTS = ("attention", "ffn", "experts", "shared_experts")
"""Parts of `Parameters` that a format quantizes; the others stay in 16 bits."""


class Format(Model):
    """One weight format."""

    name: str
    """As in a recipe, in lower case."""
    bits: float
    """Of a quantized weight in a block, with its scales."""
    embedding_bits: float = 16
    """Of the embedding."""
    head_bits: float = 16
    """Of the output head."""
    keeps: tuple[str, ...] = ()
    """Parts that stay in 16 bits besides norms, routers, embedding and head."""
    compute: tuple[str, ...] = ("bf16",)
    """Types that its matrix products can run in, the fastest first; a GPU takes the first that it has."""
    unit: str | None = None
    """A type that the GPU must have for the fastest; else the weights are unpacked to 16 bits for each product."""
    engines: tuple[str, ...] = ()
    """Engines that read it; empty: all but llama.cpp."""
    group: int = 1
    """Weights of a row that share a scale, so that they cannot be spread over GPUs."""
    unpacked: bool = False
    """Whether no engine has kernels for it: weights are unpacked before each product."""


_HUB = [
    Format(name="bf16", bits=16, compute=("bf16", "fp16")),
    Format(name="fp16", bits=16, compute=("fp16", "bf16")),
    Format(name="fp32", bits=32, embedding_bits=32, head_bits=32, compute=("tf32",)),
    Format(name="fp8", bits=8, compute=("fp8", "bf16", "fp16")),
    Format(name="fp8_block", bits=8.002, group=128, compute=("fp8", "bf16", "fp16")),  # blocks of 128 x 128
    Format(name="fbgemm_fp8", bits=8, keeps=("attention",), compute=("fp8", "bf16")),
    Format(name="mxfp8", bits=8.25, group=32, compute=("fp8", "bf16")),
    Format(name="int8", bits=8, compute=("int8", "bf16", "fp16")),
    Format(name="w8a16", bits=8.125, compute=("bf16", "fp16")),
    Format(
        name="w4a16", bits=4.156, group=128, compute=("bf16", "fp16")
    ),  # groups of 128: an fp16 scale, half of them a zero
    Format(name="w4a8", bits=4.125, group=128, compute=("fp8", "bf16")),
    Format(name="nvfp4", bits=4.5, group=16, compute=("fp4", "bf16", "fp16")),  # an fp8 scale for 16 weights
    Format(name="nvfp4a16", bits=4.5, group=16, compute=("bf16", "fp16")),
    Format(name="mxfp4", bits=4.25, group=32, unit="fp4", compute=("fp8", "bf16", "fp16")),  # 32 share an exponent
    Format(name="nf4", bits=4.127, unpacked=True, compute=("bf16", "fp16")),  # doubly quantized constants
]
_ALIASES = {
    "bfloat16": "bf16",
    "auto": "bf16",
    "none": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "float32": "fp32",
    "f32": "fp32",
    "fp8_dynamic": "fp8",
    "fp8_per_tensor": "fp8",
    "fp8_per_block": "fp8_block",
    "w8a8_fp8": "fp8",
    "w8a8": "int8",
    "w8a8_int8": "int8",
    "int8_sq": "int8",
    "smoothquant": "int8",
    "int4": "w4a16",
    "awq": "w4a16",
    "int4_awq": "w4a16",
    "w4a16_awq": "w4a16",
    "gptq": "w4a16",
    "w4a8_awq": "w4a8",
    "w4afp8": "w4a8",
    "fp4": "nvfp4",
    "mxfp4_moe": "mxfp4",
    "bnb": "nf4",
    "bitsandbytes": "nf4",
}
# GGUF: bits of a block's weights (a K-quant of the M kind has half of v and down in a wider type), embedding, head;
# they reproduce the file sizes of Llama-3.1-8B in llama.cpp's tools/quantize/README.md
_GGUF = {
    "iq1_s": (1.69, 2.625, 5.5),
    "iq1_m": (1.86, 2.625, 5.5),
    "iq2_xxs": (2.13, 2.625, 5.5),
    "iq2_xs": (2.37, 2.625, 5.5),
    "iq2_s": (2.54, 2.625, 5.5),
    "iq2_m": (2.73, 3.4375, 5.5),
    "iq3_xxs": (2.99, 3.4375, 6.5625),
    "iq3_xs": (3.27, 3.4375, 6.5625),
    "iq3_s": (3.46, 3.4375, 6.5625),
    "iq3_m": (3.57, 3.4375, 6.5625),
    "iq4_xs": (4.3, 4.25, 6.5625),
    "iq4_nl": (4.55, 4.5, 6.5625),
    "q2_k_s": (2.74, 2.625, 6.5625),
    "q2_k": (2.95, 2.625, 6.5625),
    "q3_k_s": (3.44, 3.4375, 6.5625),
    "q3_k_m": (3.85, 3.4375, 6.5625),
    "q3_k_l": (4.2, 3.4375, 6.5625),
    "q4_0": (4.5, 4.5, 6.5625),
    "q4_1": (5.0, 5.0, 6.5625),
    "q4_k_s": (4.535, 4.5, 6.5625),
    "q4_k_m": (4.8, 4.5, 6.5625),
    "q5_0": (5.5, 5.5, 6.5625),
    "q5_1": (6.0, 6.0, 6.5625),
    "q5_k_s": (5.5, 5.5, 6.5625),
    "q5_k_m": (5.65, 5.5, 6.5625),
    "q6_k": (6.5625, 6.5625, 6.5625),
    "q8_0": (8.5, 8.5, 8.5),
    "f16": (16, 16, 16),
}


@cache
def formats() -> dict[str, Format]:
    """Every format by its name; the GGUF ones are llama.cpp's."""
    gguf = [
        Format(
            name=name,
            bits=bits,
            embedding_bits=embedding,
            head_bits=head,
            compute=("bf16", "fp16") if name == "f16" else ("int8", "bf16", "fp16"),
            engines=("llama_cpp",),
        )
        for name, (bits, embedding, head) in _GGUF.items()
    ]
    return {found.name: found for found in [*_HUB, *gguf]}


def weight_format(word: str) -> Format:
    """The format that a recipe's word means. Raises InputError with the nearest name."""
    name = word.strip().lower().replace("-", "_")
    known = formats()
    if (found := known.get(_ALIASES.get(name, name))) is None:
        raise InputError(f"unknown quantization {word!r}; {nearest(name, sorted({*known, *_ALIASES}))}")
    return found


def weight_parts(model: ModelFacts, served: Format) -> dict[str, float] | Unknown:
    """Bytes of the whole model's weights by part of `Parameters`."""
    counted = parameters(model)
    if isinstance(counted, Unknown):
        return _published(model, served, counted)
    found = {part: getattr(counted, part) * part_bits(counted, served, part) / 8 for part in PARTS}
    ends = {"embedding": served.embedding_bits, "head": served.head_bits}
    if not counted.head:  # tied: GGUF stores the one matrix in the head's type
        ends["embedding"] = max(served.embedding_bits, served.head_bits)
    found |= {part: getattr(counted, part) * bits / 8 for part, bits in ends.items()}
    plain = 32 if served.bits == 32 else 16
    return found | {part: getattr(counted, part) * plain / 8 for part in ("router", "norms", "other", "vision")}


def part_bits(counted: Parameters, served: Format, part: str) -> float:
    """Of one weight of that part; MXFP4 of a mixture is the format of its experts alone (gpt-oss)."""
    kept = part in served.keeps or (served.name == "mxfp4" and counted.experts and part != "experts")
    return max(16, served.bits) if kept else served.bits


def compute_type(served: Format, flops: dict[str, float]) -> str | None:
    """The type that a GPU with these peaks computes this format's products in; None: it has no such unit."""
    missing = served.unit is not None and not flops.get(served.unit)
    return next((name for name in served.compute[missing:] if flops.get(name)), None)


def _published(model: ModelFacts, served: Format, reason: Unknown) -> Unknown:
    """What is certain when only the published total is known: every weight at the format's bits, to all in 16."""
    total = model.published_parameters
    if total is None:
        return Unknown(reason=reason.reason)
    low = min(served.bits, served.embedding_bits) / 8
    return Unknown(reason=reason.reason, low=total * low * 0.95, high=total * 2 * 1.05)
