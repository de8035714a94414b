"""Which engine serves which weight format on which GPU, and how; a refusal says why and what would do.

What runs natively and what is unpacked to 16 bits for each product follows from the GPU's types (`compute_type`). The
exceptions below were read in vLLM 0.32's kernel lists, TensorRT-LLM 1.2's support matrix and llama.cpp's README.
"""

from typing import Literal, NamedTuple

from orchestrator.catalog.gpus import Gpu
from orchestrator.errors import InputError
from orchestrator.planner.serving.formats import Format, compute_type, formats, weight_format
from orchestrator.planner.serving.serving import Serving

NVIDIA = "sm_"
CPU = "cpu"
AMPERE_ON = ("sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_100", "sm_103", "sm_120", "sm_121")
ADA_ON = AMPERE_ON[3:]
BLACKWELL = AMPERE_ON[5:]
Kind = Literal["native", "weight-only", "emulated", "no"]


class Way(NamedTuple):
    """How an engine serves a weight format."""

    kind: Kind
    """With kernels of its own; unpacked to 16 bits for each product; by slow reference code; not at all."""
    why: str = ""
    """Of the last two, and what would do."""


class Rule(NamedTuple):
    """What an engine serves of one format: a prefix of an architecture stands for a family of GPUs."""

    where: tuple[str, ...]
    because: str
    elsewhere: Kind = "no"


_PLAIN = Rule(AMPERE_ON, "it runs on NVIDIA GPUs from Ampere on")
_TRT = {
    "bf16": _PLAIN,
    "fp16": _PLAIN,
    "fp8": Rule(ADA_ON, "it needs fp8 matrix units, from Ada and Hopper on"),
    "fp8_block": Rule(("sm_90", "sm_100", "sm_103"), "fp8 with scales of blocks runs on Hopper and B200, B300 only"),
    "w4a16": Rule(("sm_80", "sm_86", "sm_89", "sm_90"), "int4 has no Blackwell kernels"),
    "w4a8": Rule(("sm_89", "sm_90"), "int4 with fp8 activations runs on Ada and Hopper only"),
    "nvfp4": Rule(BLACKWELL, "NVFP4 runs on Blackwell only"),
    # the support matrix says Blackwell only, but gpt-oss was measured on Hopper, by its Triton kernels (perf-overview)
    "mxfp4": Rule(("sm_90", *BLACKWELL), "MXFP4 runs on Blackwell, and of gpt-oss on Hopper"),
    "mxfp8": Rule(("sm_100", "sm_103"), "MXFP8 runs on data-centre Blackwell only"),
}
_VLLM = {
    "int8": Rule(
        ("sm_7", "sm_8", "sm_90", "sm_12", "gfx"), "its int8 kernel raises at the first request on Blackwell; use fp8"
    ),
    "w4a8": Rule(("sm_90",), "int4 with fp8 activations runs on Hopper only"),
    "nvfp4": Rule((NVIDIA,), "NVFP4 is only emulated on AMD's GPUs; use fp8", "emulated"),
    "mxfp4": Rule((NVIDIA, "gfx95"), "MXFP4 is only emulated there; use fp8", "emulated"),
}
_GGUF = tuple(name for name, found in formats().items() if found.engines)
_RULES: dict[str, dict[str, Rule]] = {"tensorrt_llm": _TRT, "vllm": _VLLM, "sglang": _VLLM}
_ONLY = {
    "tensorrt_llm": tuple(_TRT),
    "llama_cpp": (*_GGUF, "bf16", "fp16", "fp32", "mxfp4", "nvfp4"),
}
"""Engines that read no other format; the others read all but GGUF."""
_UNPACKED: dict[tuple[str, str], tuple[str, ...]] = {
    ("vllm", "fp8_block"): ("sm_7", "sm_8"),  # by Marlin, also on Ada, whose fp8 units take whole tensors or rows
    ("llama_cpp", "mxfp4"): ("sm_7", "sm_8", "sm_9", "sm_10", "gfx", CPU),  # only sm_120's fp4 units have kernels
    ("llama_cpp", "nvfp4"): ("sm_7", "sm_8", "sm_9", "sm_10", "gfx", CPU),
}
"""Products in 16 bits although the GPU has the type."""
_16_BITS = ("bf16", "fp16", "tf32")


def way(serving: Serving, gpu: Gpu) -> Way:
    """How the engine serves this format on this GPU."""
    engine, served = serving.traits.name, weight_format(serving.quantization)
    known = _ONLY.get(engine) or tuple(found for found in formats() if found not in _GGUF)
    if served.name not in known:
        theirs = ", which is a format of llama_cpp" if served.name in _GGUF else ""
        return Way("no", f"{engine} does not read {served.name}{theirs}")
    rule = _RULES.get(engine, {}).get(served.name)
    if rule and not gpu.arch.startswith(rule.where):
        return Way(rule.elsewhere, f"{engine} cannot serve {served.name} on {gpu.kind}: {rule.because}")
    return Way("weight-only" if _is_unpacked(engine, served, gpu) else "native")


def way_on_cpu(serving: Serving) -> Way:
    """How a CPU computes the format, where the engine serves it on that CPU."""
    served = weight_format(serving.quantization)
    unpacked = served.unpacked or CPU in _UNPACKED.get((serving.traits.name, served.name), ())
    return Way("weight-only" if unpacked else "native")


def refusal(serving: Serving, gpu: Gpu) -> str | None:
    """Why the engine cannot serve this format on this GPU; None: it can. Emulation is for tests, and is refused."""
    found = way(serving, gpu)
    return found.why if found.kind in ("no", "emulated") else None


def check_servable(serving: Serving, gpu: Gpu) -> None:
    """Raise InputError, with the formats that the engine serves on this GPU, when it cannot serve this one."""
    if (reason := refusal(serving, gpu)) is None:
        return
    usable = [name for name in formats() if refusal(serving.model_copy(update={"quantization": name}), gpu) is None]
    others = f"use one of {', '.join(usable)}" if usable else "choose another engine, or another GPU"
    raise InputError(reason, next_step=others)


def _is_unpacked(engine: str, served: Format, gpu: Gpu) -> bool:
    """Whether products are computed in a wider type than the format's own."""
    if served.unpacked or gpu.arch.startswith(_UNPACKED.get((engine, served.name), ("none",))):
        return True
    return served.compute[0] not in _16_BITS and compute_type(served, gpu.flops) != served.compute[0]
