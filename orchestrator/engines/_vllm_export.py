"""What vLLM is given: the merged model as it is, or quantized by llm-compressor; an adapter, and where its base is."""

from dataclasses import replace
from pathlib import Path

from orchestrator.engines import _checkpoint, _vllm_formats, _vllm_lora
from orchestrator.engines._vllm_environments import LLM_COMPRESSOR
from orchestrator.engines.base import LORA, Source, Tools
from orchestrator.environments.environment import Installed
from orchestrator.environments.site import Site
from orchestrator.errors import InputError


def export(source: Source, quantization: str, out: Path, tools: Tools) -> None:
    """Raises InputError for an adapter that vLLM cannot apply, a model that cannot be quantized, or no rows for it."""
    name = _vllm_formats.canonical(quantization)
    assert name is not None, "a recipe with another word is refused when it is read"
    if name == LORA:
        _vllm_lora.export(source, out, tools)
    elif name in _vllm_formats.PLAIN:
        _checkpoint.plain(source.merged, _vllm_formats.PLAIN[name], out, tools)
    else:
        quantize(source, name, out, tools)


def quantize(source: Source, name: str, out: Path, tools: Tools) -> None:
    """By llm-compressor, in its own environment."""
    calibrated = name in _vllm_formats.CALIBRATED
    if calibrated and source.rows is None:
        raise InputError(
            f"quantization {name} is calibrated on the training chats, and there are none",
            next_step="name them under datasets, or use quantization FP8",
        )
    request = {
        "model": str(source.merged),
        "out": str(out),
        "quantization": name,
        "rows": str(source.rows) if calibrated else None,
        "seed": source.seed,
    }
    tools.worker("quantize_llm_compressor", request, python=_llm_compressor(tools.site).python)


def _llm_compressor(site: Site) -> Installed:
    """Where there is none for the accelerator, the one that computes on the CPU."""
    return (site if site.kind in LLM_COMPRESSOR.kinds else replace(site, kind="cpu")).ensure(LLM_COMPRESSOR)
