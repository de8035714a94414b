"""Quantizes a plain model with NVIDIA's ModelOpt, in an environment of its own, into a checkpoint for TensorRT-LLM.

All formats are calibrated on chats of the training data. Output head and routers stay as they are. Tokenizer, chat
template and end tokens are copied: another version of transformers would write them anew.

Request: model (folder), out (folder), quantization (FP8, INT4_AWQ, W4A8_AWQ or NVFP4), rows (JSON lines), seed.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import modelopt.torch.quantization as mtq
import torch
from modelopt.torch.export import export_hf_checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer

from orchestrator.engines import _checkpoint
from orchestrator.errors import InputError
from orchestrator.workers import calibration
from orchestrator.workers.protocol import emit, main

SETTINGS = {
    "FP8": mtq.FP8_DEFAULT_CFG,
    "INT4_AWQ": mtq.INT4_AWQ_CFG,
    "W4A8_AWQ": mtq.W4A8_AWQ_BETA_CFG,
    "NVFP4": mtq.NVFP4_DEFAULT_CFG,
}
GROUPS = {"INT4_AWQ": (128, 64), "W4A8_AWQ": (128,), "NVFP4": (16,)}
"""Weights that share a scale: the first that divides every layer's input; TensorRT-LLM has kernels for these."""
TOKENS = 128 * 2048
"""Of the calibration, as in the GPTQ paper (arXiv 2210.17323)."""
TOKENS_ON_CPU = TOKENS // 16


def work(request: dict[str, Any]) -> dict[str, Any]:
    """Write the quantized model and `calibration.json`. Raises InputError for a model that ModelOpt cannot quantize."""
    folder, out, quantization = Path(request["model"]), Path(request["out"]), request["quantization"]
    model = load(folder)
    drawn = calibration.draw(calibration.chats(Path(request["rows"])), request["seed"])
    enough = TOKENS if torch.accelerator.is_available() else TOKENS_ON_CPU
    tokens = calibration.token_ids(AutoTokenizer.from_pretrained(folder), drawn, enough)
    emit("log", message=f"ModelOpt: {quantization}, {sum(map(len, tokens))} tokens for calibration")
    try:
        mtq.quantize(model, settings(quantization, model), lambda quantizing: read(quantizing, tokens))
        export_hf_checkpoint(model, export_dir=str(out))
    except (ValueError, RuntimeError, NotImplementedError) as error:
        raise InputError(f"ModelOpt cannot quantize {folder} to {quantization}: {error}") from error
    _checkpoint.copy(folder, out, lambda file: not _checkpoint.is_weights(file) and file.name != "config.json")
    calibration.record(out, tokens, request["seed"])
    return {"rows": len(tokens), "tokens": sum(map(len, tokens))}


def load(folder: Path) -> Any:
    """In 16 bits, on the accelerators where there are some."""
    where = "auto" if torch.accelerator.is_available() else None
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, device_map=where).eval()


def settings(quantization: str, model: Any) -> dict[str, Any]:
    """ModelOpt's, with the widest group that all layers allow. Raises InputError where there is none."""
    found: dict[str, Any] = copy.deepcopy(SETTINGS[quantization])
    sizes = GROUPS.get(quantization)
    if sizes is None:
        return found
    group = common_group(model, sizes)
    for entry in found["quant_cfg"]:
        given = entry.get("cfg") or []
        for quantizer in given if isinstance(given, list) else [given]:
            if "block_sizes" in quantizer:
                quantizer["block_sizes"][-1] = group
    return found


def common_group(model: Any, sizes: Sequence[int]) -> int:
    """The first size that divides the inputs of all layers but the head. Raises InputError where there is none."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    widths = sorted({layer.in_features for name, layer in layers.items() if "lm_head" not in name})
    for size in sizes:
        if all(width % size == 0 for width in widths):
            return size
    asked, found = " or ".join(map(str, sizes)), ", ".join(map(str, widths))
    raise InputError(
        f"no group of {asked} weights divides all layers' inputs ({found})",
        next_step="use quantization FP8",
    )


@torch.inference_mode()  # type: ignore[untyped-decorator]
def read(model: Any, tokens: Sequence[Sequence[int]]) -> None:
    """Show the model every chat."""
    for ids in tokens:
        model(input_ids=torch.tensor([ids], device=model.device))


if __name__ == "__main__":
    main(work, silent_s=12 * 3600.0)
