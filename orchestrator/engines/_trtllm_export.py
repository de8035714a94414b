"""Model folders for TensorRT-LLM: plain, quantized by ModelOpt, or a base with an adapter.

The settings become those that transformers 4.57 reads, which TensorRT-LLM 1.2.1 pins.
"""

from pathlib import Path
from typing import Any

from orchestrator.engines import _adapter, _checkpoint, _transformers_4
from orchestrator.engines.base import LORA, Adapter, Source, Tools
from orchestrator.environments.environment import Environment, Pip
from orchestrator.errors import InputError

ADAPTER = "adapter"
"""Folder of the adapter in an export, beside the base's files."""
CALIBRATED = ("FP8", "INT4_AWQ", "W4A8_AWQ", "NVFP4")
"""What ModelOpt makes."""
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
_GB = 10**9
_REQUIREMENTS = ("nvidia-modelopt=={version}", "transformers==5.14.1", "accelerate>=1.15,<2", "sentencepiece")
# its `hf` extra would bring deepspeed, diffusers and nltk; it imports requests without asking for it
_PIP = Pip(requirements=(*_REQUIREMENTS, "requests"), first=("torch==2.13.0",), size_bytes=2 * _GB)
MODEL_OPT = Environment(
    name="model_opt",
    version="0.47.0",
    purpose="quantizes for tensorrt_llm",
    check="modelopt.torch.quantization",
    kinds={
        "cpu": _PIP,
        "cuda": _PIP.model_copy(update={"size_bytes": 9 * _GB}),
        "rocm": _PIP.model_copy(update={"size_bytes": 9 * _GB}),
    },
)


def export(source: Source, quantization: str, out: Path, tools: Tools) -> None:
    """Raises InputError for a model or an adapter that cannot be served so."""
    if quantization == LORA:
        _export_adapter(source, out)
    elif quantization in CALIBRATED:
        _quantize(source, quantization, out, tools)
    else:
        _checkpoint.copy(source.merged, out)
        _checkpoint.change(out / "config.json", dtype="bfloat16")
    _transformers_4.rewrite(out)


def unknown_modules(adapter: Adapter) -> list[str]:
    """Modules that the adapter changes and that TensorRT-LLM has no name for."""
    return sorted(set(adapter.target_modules) - MODULES.keys())


def lora_config(adapter: Adapter) -> dict[str, Any]:
    """`lora_config` for one adapter. Raises InputError for modules that TensorRT-LLM has no name for."""
    names = adapter.target_modules or tuple(MODULES)
    if unknown := unknown_modules(adapter):
        raise InputError(
            f"tensorrt_llm applies no adapter to modules {', '.join(unknown)}; it does to {', '.join(MODULES)}",
            next_step="serve the merged model, or train the adapter on these modules alone",
        )
    return {
        "lora_target_modules": [theirs for ours, theirs in MODULES.items() if ours in names],
        "max_lora_rank": adapter.rank,
        "max_loras": 1,
        "max_cpu_loras": 1,
    }


def _export_adapter(source: Source, out: Path) -> None:
    """Weights and settings of the base with the tokenizer and end tokens that were trained; the adapter beside them."""
    if source.adapter is None or source.base is None:
        raise InputError(
            "there is no adapter to serve: the model was trained as a whole", next_step="use quantization BF16"
        )
    lora_config(_adapter.read(source.adapter))
    _checkpoint.copy(source.merged, out, lambda file: not _checkpoint.is_weights(file))
    _checkpoint.copy(source.base, out, lambda file: _checkpoint.is_weights(file) or file.name == "config.json")
    (out / ADAPTER).mkdir()
    _checkpoint.copy(source.adapter, out / ADAPTER, lambda file: file.name.startswith("adapter_"))


def _quantize(source: Source, quantization: str, out: Path, tools: Tools) -> None:
    """All of them need to know typical activations: they are calibrated on chats of the training data."""
    if source.rows is None:
        raise InputError(
            f"{quantization} is calibrated on chats of the training data, and there are none",
            next_step="add the data section to the recipe, or use quantization BF16",
        )
    request = {
        "model": str(source.merged),
        "out": str(out),
        "quantization": quantization,
        "rows": str(source.rows),
        "seed": source.seed,
    }
    tools.worker("quantize_modelopt", request, python=tools.site.ensure(MODEL_OPT).python)
