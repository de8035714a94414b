"""Model folders for TensorRT-LLM: plain, quantized by ModelOpt, or a base with an adapter.

The settings become those that transformers 4.57 reads, which TensorRT-LLM 1.2.1 pins.
"""

from dataclasses import replace
from pathlib import Path

from orchestrator.engines import _checkpoint, _transformers_4, _trtllm_lora
from orchestrator.engines.base import LORA, Source, Tools
from orchestrator.environments.environment import Environment, Installed, Pip
from orchestrator.environments.site import Site
from orchestrator.errors import InputError

CALIBRATED = ("FP8", "INT4_AWQ", "W4A8_AWQ", "NVFP4")
"""What ModelOpt makes."""
# its `hf` extra would bring deepspeed, diffusers and nltk; it imports requests without asking for it
_REQUIREMENTS = (
    "nvidia-modelopt=={version}",
    "transformers==5.14.1",
    "accelerate>=1.15,<2",
    "sentencepiece",
    "requests",
)
MODEL_OPT = Environment(
    name="model_opt",
    version="0.47.0",
    purpose="quantizes for tensorrt_llm",
    check="modelopt.torch.quantization",
    kinds={
        "cuda": Pip(requirements=_REQUIREMENTS, first=("torch==2.13.0",), size_bytes=9 * 10**9),
        "cpu": Pip(requirements=_REQUIREMENTS, first=("torch==2.13.0",), size_bytes=int(1.4e9)),
    },
    refusals={"rocm": "the package index has no ROCm build of torch; there it quantizes on the CPU"},
)


def export(source: Source, quantization: str, out: Path, tools: Tools) -> None:
    """Raises InputError for a model or an adapter that cannot be served so."""
    if quantization == LORA:
        _trtllm_lora.export(source, out, tools)
    elif quantization in CALIBRATED:
        _quantize(source, quantization, out, tools)
    else:
        _checkpoint.plain(source.merged, "bfloat16", out, tools)
    _transformers_4.rewrite(out)


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
    tools.worker("quantize_modelopt", request, python=_model_opt(tools.site).python)


def _model_opt(site: Site) -> Installed:
    """Where there is none for the accelerator, the one that computes on the CPU."""
    return (site if site.kind in MODEL_OPT.kinds else replace(site, kind="cpu")).ensure(MODEL_OPT)
