"""The speed model against published measurements: reads a table, predicts every row, fits the constants.

As in `planner_memory.py`: `case` turns a row's own words into a fine-tune; HARNESSES has what a source does and its
columns do not say. Figures are tokens per second of all GPUs.
"""

import csv
import math
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import planner_memory as common
from planner_memory import Row, catalog, descend, mean_error, number

from orchestrator.catalog.gpus import Gpu
from orchestrator.catalog.models import ModelFacts
from orchestrator.catalog.parameters import parameters
from orchestrator.errors import OrchError
from orchestrator.planner.estimate import Unknown
from orchestrator.planner.training.constants import SPEED, SpeedConstants
from orchestrator.planner.training.finetune import FineTune, Sharding, targets
from orchestrator.planner.training.speed import speed

TABLE = "finetune_speed.csv"
COLUMN = "tokens_per_s"
EVALUATION_BATCHES, EVALUATION_TOKENS, TRAINED_TOKENS = 27, 300, 4_198_051
"""The PEFT comparison's `train_time` holds the final test: 1,319 questions in batches of 50, up to 300 tokens each
(method_comparison/MetaMathQA/run.py), so that its tokens per second are those of training and testing together."""
MEGATRON = {"kernels": "fused", "loss": "chunked", "attention": "flash", "weights_dtype": "bf16",
            "master_weights": True, "optimizer": "adamw_torch_fused"}  # fmt: skip
HARNESSES: list[tuple[str, dict[str, Any]]] = [
    ("Megatron|nemo", MEGATRON),
    ("llm-foundry", {"weights_dtype": "fp32", "attention": "flash", "optimizer": "adamw_torch_fused"}),
    ("torchtitan", {"weights_dtype": "fp32", "optimizer": "adamw_torch_fused"}),
    ("unsloth", {"kernels": "fused", "loss": "chunked", "attention": "flash", "adapter_dtype": "fp32"}),
    ("torchtune|litgpt", {"adapter_dtype": "bf16", "optimizer": "adamw_torch_fused", "autocast": False}),
    ("huggingface/peft", {"autocast": False}),
    ("", {}),
]


class Case(NamedTuple):
    """What one row measured."""

    model: ModelFacts
    tune: FineTune
    gpu: Gpu
    tested: bool
    """The time holds a test that generates."""


def rows(path: Path) -> list[Row]:
    """As the table has them."""
    with path.open(encoding="utf-8-sig") as file:
        return [
            {"source": ""} | {key: value or "" for key, value in row.items() if key} for row in csv.DictReader(file)
        ]


def measured(row: Row) -> float | None:
    """Tokens per second of all GPUs; of the table's other columns where that one is empty."""
    gpus, length = number(row.get("n_gpu")) or 1, number(row.get("seq_len"))
    if total := number(row.get("tokens_per_s")):
        return total
    if each := number(row.get("tokens_per_s_per_gpu")):
        return each * gpus
    if (samples := number(row.get("samples_per_s"))) and length:
        return samples * length
    batch = number(row.get("global_batch")) or (number(row.get("micro_batch")) or 1) * gpus
    if (step := number(row.get("sec_per_step"))) and length:
        return batch * length / step
    return None


@cache
def _case(key: tuple[tuple[str, str], ...]) -> Case:
    return case(dict(key))


def predict(row: Row, constants: SpeedConstants = SPEED) -> float:
    """Tokens per second of all GPUs. Raises OrchError for a row that names what the catalog does not know."""
    found = _case(tuple(sorted((key, value or "") for key, value in row.items() if key)))
    rate = speed(found.model, found.tune, found.gpu, constants=constants)
    if isinstance(rate, Unknown):
        raise OrchError(rate.reason)
    if not found.tested:
        return rate.value
    adapters = sum(matrix.count for matrix in targets(found.model, found.tune))
    step = (found.model.layers or 0) * constants.launch + adapters * constants.adapter_launch
    tested = EVALUATION_BATCHES * EVALUATION_TOKENS * step
    return TRAINED_TOKENS / (TRAINED_TOKENS / rate.value + tested)


def interval(row: Row, constants: SpeedConstants = SPEED) -> tuple[float, float]:
    """About nine in ten measurements are between these."""
    value = predict(row, constants)
    return value * constants.low, value * constants.high


def case(row: Row) -> Case:
    """The fine-tune that a row describes."""
    model, gpu = catalog().model(row["model"]), catalog().gpu(row["gpu"])
    said = f"{row['source']} {row.get('framework', '')}"
    settings = next(found for pattern, found in HARNESSES if re.search(pattern, said, re.IGNORECASE))
    text, method = row.get("parallelism", "").lower(), row["method"].strip().lower()
    precision = row.get("precision", "").lower()
    sharding, accumulation = _sharding(row, text, model)
    dtype = common._dtype(precision, row | {"optimizer": ""})
    kind = common._kind(method, dtype, row)
    adapter = common._adapter(method, kind, row | _noted(row), model)
    values = {
        "method": kind,
        "weights_dtype": dtype,
        "compute": _compute(precision),
        "micro_batch_size": int(number(row.get("micro_batch", "")) or 1),
        "gradient_accumulation_steps": accumulation,
        "sequence_len": int(number(row.get("seq_len", "")) or 2048),
        "checkpointing": _checkpointing(row, kind),
        "kernels": "fused" if "compile" in text and "no compile" not in text else "eager",
        "loss": "full",
        "sharding": sharding,
        "offload": common._extras(row, method, precision, kind).get("offload", "none"),
        **adapter,
        **settings,
    }
    return Case(model, FineTune.model_validate(values), gpu, "huggingface/peft" in row["source"])


def _checkpointing(row: Row, kind: str) -> str:
    """Where a row does not say: pretraining without (it is paid for in speed), fine-tuning with."""
    if not row.get("grad_checkpointing") and ("pretrain" in row["method"] or kind == "full"):
        return "none"
    return common._checkpointing(row)


def _noted(row: Row) -> Row:
    """Columns of the memory table that this one has in its notes."""
    trained = re.search(r"trainable (\d+)", row.get("notes", ""))
    return {"lora_targets": "q,v", "trainable_params": trained[1] if trained else ""} if trained else {}


def _compute(precision: str) -> str:
    if re.search(r"fp4|nvfp4", precision) and "nf4" not in precision:
        return "fp4"
    return "fp8" if re.search(r"fp8|float8|mxfp8", precision) else "16-bit"


def _sharding(row: Row, text: str, model: ModelFacts) -> tuple[Sharding, int]:
    """And the micro-batches of a step."""
    gpus = int(number(row.get("n_gpu", "")) or 1)
    degree = common.degrees(text, "tp", "pp", "cp", "ep", "vp")
    data = max(1, gpus // (degree["tp"] * degree["pp"] * degree["cp"]))
    megatron = bool(re.search("megatron|nemo", f"{row['source']} {row.get('framework', '')}", re.IGNORECASE))
    strategy = "zero1" if megatron else "zero2" if "grad_op" in text else "fsdp2" if "fsdp" in text else "ddp"
    stage = common.zero_stage(text)
    strategy = f"zero{stage}" if stage else strategy
    batch = number(row.get("global_batch", "")) or 0
    micro = number(row.get("micro_batch", "")) or 1
    sharding = Sharding.model_validate(
        {
            "strategy": strategy if data > 1 else "none",
            "data": data,
            "tensor": degree["tp"],
            "pipeline": degree["pp"],
            "context": degree["cp"],
            "expert": degree["ep"] if model.experts else 1,
            "pipeline_chunks": degree["vp"],
        }
    )
    return sharding, max(1, round(batch / (data * micro)))


FITTED = r"^(full|lora|qlora|dora)"
"""Methods that the planner knows; others have kernels of their own, and are judged but not fitted."""
GRID: dict[str, list[float]] = {
    "products": [0.55, 0.6, 0.65, 0.7, 0.75, 0.8],
    "quantized_products": [0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75],
    "expert_products": [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0],
    "attention": [0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55],
    "traffic": [0.6, 0.8, 1.0, 1.2, 1.5, 1.8, 2.2],
    "launch": [0.7e-3, 0.8e-3, 0.9e-3, 1e-3, 1.1e-3, 1.2e-3, 1.3e-3, 1.4e-3, 1.6e-3, 2e-3],
    "expert_launch": [0.5e-3, 1e-3, 1.5e-3, 2e-3, 2.5e-3, 3e-3],
    "adapter_launch": [0.1e-3, 0.15e-3, 0.2e-3, 0.3e-3, 0.4e-3],
}
PRIOR = {
    "products": 0.7,
    "quantized_products": 0.55,
    "expert_products": 0.6,
    "attention": 0.35,
    "traffic": 1.2,
    "launch": 1.1e-3,
    "expert_launch": 2e-3,
    "adapter_launch": 0.15e-3,
}
"""What each would be without any row."""


def fit(table: list[Row]) -> SpeedConstants:
    """The constants with the least mean |log error|, each held near its prior by a small penalty."""
    known = [row for row in table if measured(row) and _predictable(row) and re.search(FITTED, row["method"])]

    def loss(values: dict[str, float]) -> float:
        held = sum(math.log(value / PRIOR[name]) ** 2 for name, value in values.items())
        return mean_error(known, lambda row: predict(row, _with(values)), measured) + 0.02 * held

    return _with(descend(PRIOR, GRID, loss))


def _with(values: dict[str, float]) -> SpeedConstants:
    return SPEED.model_copy(update=values)


def _predictable(row: Row) -> bool:
    try:
        predict(row)
    except OrchError:
        return False
    return True


def baselines(row: Row) -> dict[str, float]:
    """What a user has today: 6 FLOPs per (active) parameter and token at 40 % of the 16-bit peak."""
    found = _case(tuple(sorted((key, value or "") for key, value in row.items() if key)))
    counted = parameters(found.model)
    assert not isinstance(counted, Unknown)
    peak = found.gpu.flops.get("bf16") or found.gpu.flops["fp16"]
    return {"6 P D at 40 % MFU": 0.4 * peak * found.tune.sharding.gpus / (6 * counted.active)}
