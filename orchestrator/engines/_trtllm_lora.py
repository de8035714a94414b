"""An adapter that TensorRT-LLM serves on its base: in a folder beside the base's files, named by each request.

Its loader (lora_manager.py) reads A and B of each layer and scales them by one alpha. What it passes over without a
word is refused here.
"""

from pathlib import Path
from typing import Any

from orchestrator.engines import _adapter, _adapter_base
from orchestrator.engines.base import LORA, Adapter, Launch, Source, Tools

FOLDER = "adapter"
"""Of the adapter, in an export."""
MODULES = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_dense",
    "gate_proj": "mlp_h_to_4h",
    "up_proj": "mlp_gate",
    "down_proj": "mlp_4h_to_h",
    "gate_up_proj": "mlp_gate_up",
}
"""Hugging Face's modules by TensorRT-LLM's names (lora_helper.py)."""


def refuses(adapter: Adapter, quantization: str) -> list[str]:
    """Why it cannot apply the adapter to its base, each with what would do; a merged model is none of these."""
    if quantization != LORA:
        return []
    unknown = sorted(set(adapter.target_modules) - MODULES.keys())
    reasons = {
        "it passes over modules that were trained as a whole": adapter.modules_to_save or adapter.resized_vocabulary,
        "DoRA is not proven on its PyTorch backend": adapter.use_dora,
        "it passes over trained biases": adapter.bias != "none",
        "it reads one alpha for all modules": adapter.alpha_pattern,
        f"init_lora_weights {adapter.init_lora_weights!r} has changed the base": _adapter.changes_base(adapter),
        f"it has no name for modules {', '.join(unknown)}": bool(unknown),
        f"it knows nothing of {', '.join(adapter.variants)}": bool(adapter.variants),
    }
    return [f"tensorrt_llm: {reason}; {_adapter_base.MERGE}" for reason, holds in reasons.items() if holds]


def export(source: Source, out: Path, tools: Tools) -> None:
    """Raises InputError for an adapter that TensorRT-LLM would not apply, or of another base."""
    _adapter_base.lay_out(source, out, out / FOLDER, refuses, tools)


def of(launch: Launch) -> Adapter | None:
    """What the export's adapter is, or will be; None: the export is a whole model."""
    made = launch.model / FOLDER
    return launch.adapter or (_adapter.read(made) if made.is_dir() else None)


def config(adapter: Adapter) -> dict[str, Any]:
    """`lora_config` for one adapter."""
    names = adapter.target_modules or tuple(MODULES)
    return {
        "lora_target_modules": [theirs for ours, theirs in MODULES.items() if ours in names],
        "max_lora_rank": adapter.rank,
        "max_loras": 1,
        "max_cpu_loras": 1,
    }
