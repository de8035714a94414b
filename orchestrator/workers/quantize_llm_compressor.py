"""Quantizes a plain model with llm-compressor, in an environment of its own.

Formats that need to know typical activations are calibrated on chats of the training data. Output head and routers
stay as they are. Tokenizer, chat template and end tokens are copied: another version of transformers would write them
anew.

Request: model (folder), out (folder), quantization (FP8, INT8, GPTQ, AWQ or NVFP4), rows (JSON lines, or null), seed.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.quantization import preset_name_to_scheme
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier
from llmcompressor.pipelines.cache import IntermediatesCache
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer

from orchestrator.errors import InputError
from orchestrator.workers import calibration
from orchestrator.workers.protocol import emit, main

IGNORED = ("lm_head", r"re:.*\.gate$", r"re:.*router.*")
"""Modules that stay in 16 bits: the head, and what chooses the experts of a mixture."""
SMOOTHING = 0.8
"""Strength of SmoothQuant in llm-compressor's examples of W8A8."""
GROUPS = (128, 64, 32)
"""Weights that share a 4-bit scale: the first that divides every layer's input; vLLM has kernels for these."""
TOKENS = 128 * 2048
"""Of the calibration, as in the GPTQ paper (arXiv 2210.17323)."""
TOKENS_ON_CPU = TOKENS // 16


def work(request: dict[str, Any]) -> dict[str, Any]:
    """Write the quantized model, and `calibration.json` where it was calibrated. Raises InputError."""
    folder, out = Path(request["model"]), Path(request["out"])
    model, tokens = load(folder), calibration_tokens(folder, request["rows"], request["seed"])
    emit("log", message=f"llm-compressor: {request['quantization']}, {sum(map(len, tokens))} tokens for calibration")
    try:
        oneshot(model=model, recipe=recipe(request["quantization"], model), dataset=loader(tokens))
    except (ValueError, RuntimeError) as error:
        raise InputError(f"llm-compressor cannot quantize {folder} to {request['quantization']}: {error}") from error
    model.save_pretrained(out, save_compressed=True)
    copy_others(folder, out)
    if tokens:
        calibration.record(out, tokens, request["seed"])
    return {"rows": len(tokens), "tokens": sum(map(len, tokens))}


def load(folder: Path) -> Any:
    """In 16 bits, as it will be served."""
    dtype = json.loads((folder / "config.json").read_text()).get("dtype")
    return AutoModelForCausalLM.from_pretrained(folder, dtype="bfloat16" if dtype == "float32" else "auto")


def calibration_tokens(folder: Path, rows: str | None, seed: int) -> list[list[int]]:
    """Of the drawn chats; none where there are no rows."""
    if rows is None:
        return []
    drawn = calibration.draw(calibration.chats(Path(rows)), seed)
    enough = TOKENS if torch.accelerator.is_available() else TOKENS_ON_CPU
    return calibration.token_ids(AutoTokenizer.from_pretrained(folder), drawn, enough)


def loader(tokens: Sequence[Sequence[int]]) -> DataLoader[Any] | None:
    """One chat a batch: no padding takes part."""
    batches = [{"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids)).long()} for ids in tokens]
    return DataLoader(batches, batch_size=None) if batches else None


def recipe(quantization: str, model: Any) -> list[Any]:
    """llm-compressor's modifiers, in their order. Raises InputError for a model that has no common group size."""
    common: dict[str, Any] = {"targets": "Linear", "ignore": list(IGNORED)}
    match quantization:
        case "FP8":
            return [QuantizationModifier(scheme="FP8_DYNAMIC", **common)]
        case "INT8":
            return [SmoothQuantModifier(smoothing_strength=SMOOTHING), GPTQModifier(scheme="W8A8", **common)]
        case "GPTQ":
            return [GPTQModifier(config_groups=grouped("W4A16", model), ignore=list(IGNORED))]
        case "AWQ":
            allow_cpu()
            return [
                AWQModifier(),
                QuantizationModifier(config_groups=grouped("W4A16_ASYM", model), ignore=list(IGNORED)),
            ]
        case _:
            return [QuantizationModifier(scheme=quantization, **common)]


def grouped(scheme: str, model: Any) -> dict[str, Any]:
    """A 4-bit scheme with the widest group that all layers allow."""
    widths = {layer.in_features for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    size = next((size for size in GROUPS if all(width % size == 0 for width in widths)), None)
    if size is None:
        raise InputError(
            f"no group of {', '.join(map(str, GROUPS))} weights divides all layers' inputs ({sorted(widths)})",
            next_step="use quantization FP8 or INT8",
        )
    found = preset_name_to_scheme(scheme, ["Linear"])
    found.weights.group_size = size
    return {"group_0": found}


def allow_cpu() -> None:
    """llm-compressor 0.14 pins AWQ's cache in memory whatever computes, which torch refuses without an accelerator."""
    if not torch.accelerator.is_available():
        IntermediatesCache.pin_memory = lambda *_: None


def copy_others(folder: Path, out: Path) -> None:
    """All that is not weights, but for the configuration, which says by now how they are quantized."""
    for file in folder.iterdir():
        if file.is_file() and file.name != "config.json" and not file.name.endswith((".safetensors", ".index.json")):
            shutil.copy(file, out)


if __name__ == "__main__":
    main(work, silent_s=12 * 3600.0)
