"""Weight formats of vLLM: their names in a recipe, who makes them, and which of them this machine's CPU can compute."""

from functools import cache
from pathlib import Path

from orchestrator.catalog.gpus import Gpu
from orchestrator.engines.base import LORA, Support
from orchestrator.planner.serving.servable import refusal
from orchestrator.planner.serving.serving import Serving
from orchestrator.plugins import nearest

PLAIN = {"BF16": "bfloat16", "FP16": "float16", "FP32": "float32"}
"""Formats that are not quantized, with torch's names."""
QUANTIZED = ("FP8", "INT8", "GPTQ", "AWQ", "NVFP4")
"""Made by llm-compressor: FP8 with dynamic scales, INT8 weights and activations, 4-bit weights in two ways, NVFP4."""
CALIBRATED = QUANTIZED[1:]
QUANTIZATIONS = (*PLAIN, LORA, *QUANTIZED)
ALIASES = {
    **{name.upper(): name for name in QUANTIZATIONS},
    **{"BFLOAT16": "BF16", "FLOAT16": "FP16", "FLOAT32": "FP32"},
    **{"FP8_DYNAMIC": "FP8", "W8A8_FP8": "FP8", "W8A8": "INT8", "W8A8_INT8": "INT8"},
    **{"W4A16": "GPTQ", "INT4": "GPTQ", "W4A16_AWQ": "AWQ", "INT4_AWQ": "AWQ"},
}


def canonical(quantization: str) -> str | None:
    """The name here of what a recipe writes; None: it is none of vLLM's."""
    return ALIASES.get(quantization.upper())


def supports(quantization: str, gpu: Gpu | None) -> Support:
    """Whether it can be served on the GPU, or on this machine's CPU."""
    name = canonical(quantization)
    if name is None:
        known = nearest(quantization.upper(), list(QUANTIZATIONS))
        return Support(ok=False, reason=f"vLLM does not serve quantization {quantization!r}; {known}")
    word = "BF16" if name == LORA else name
    reason = refusal(Serving(engine="vllm", quantization=word), gpu) if gpu else on_cpu(name, cpu_flags())
    return Support(ok=reason is None, reason=reason or "")


def on_cpu(name: str, flags: frozenset[str]) -> str | None:
    """Why a CPU with these flags cannot compute the format with vLLM 0.32; None: it can.

    4-bit weights load and kill the engine at the first request where the kernel is missing, FP8 and INT8 run from AVX2
    on, NVFP4 has no kernel at all (all of it seen on real CPUs).
    """
    if name == "NVFP4":
        return "vLLM has no NVFP4 kernel for CPUs; use FP8 or INT8, or a GPU"
    if name in ("GPTQ", "AWQ") and "avx512f" not in flags:
        return f"vLLM's kernel for {name} needs AVX-512, which this CPU does not have; use FP8 or INT8"
    return None


@cache
def cpu_flags() -> frozenset[str]:
    """Instruction sets of this machine's CPU, by Linux's names; empty where they cannot be read."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    found = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(found.partition(":")[2].split())
