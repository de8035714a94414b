"""The memory model against published measurements: reads a table, predicts every row, fits the constants.

A row says what was measured in its own words; `case` turns them into a fine-tune and into the figure that was
published (PyTorch's allocated or reserved memory, or the driver's). What a source's harness does and its columns do
not say is in HARNESSES, each with where it was read.
"""

import csv
import math
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.catalog.catalog import Catalog, load
from orchestrator.catalog.models import ModelFacts
from orchestrator.config import Model
from orchestrator.errors import InputError, OrchError
from orchestrator.planner.estimate import Estimate, Unknown
from orchestrator.planner.training.constants import MEMORY, MemoryConstants
from orchestrator.planner.training.finetune import FineTune, Sharding
from orchestrator.planner.training.memory import Measure, largest_tensor, memory
from orchestrator.planner.training.quantization import DTYPE_BYTES, weight_bytes
from orchestrator.planner.training.states import trained_parameters

GIB = 2**30
TABLE = "memory_train.csv"
COLUMN = "value_GiB"
Row = dict[str, str]
NO_INPUTS = {  # methods that keep no input of a matrix: they change weights, biases, norms, keys or the prompt
    "prefix_tuning",
    "prompt_tuning",
    "p_tuning",
    "adaption_prompt",
    "adapter",
    "ln_tuning",
    "trainable_tokens",
    "tinylora",
    "beft",
    "bitfit",
    "freeze",
}
UNPLANNED = r"galore|lomo|badam|apollo|mezo|\blisa\b|\bppo\b|\bgrpo\b|\bdpo\b|reward"
"""Methods whose states, or whose second model, are not those of a fine-tune; a guess would look like a prediction."""
PROMPTS = {"prompt_tuning", "p_tuning"}
DEFAULT_LENGTH = 512
"""Tokens of a row where a table has none: Alpaca's, which tutorials use, are shorter."""
PERCENTILE_TOKENS = 0.8
"""Share of the cap that the longest row of the last ten batches reaches at the 99th percentile: lengths are lognormal
with mean 210 and 1 in 20,000 at the cap of 768; rows are sorted within buckets of 80; the cache is emptied every ten
steps (method_comparison/MetaMathQA/run.py)."""


class Harness(Model):
    """What a source's runs have in common and its table does not say."""

    name: str
    pattern: str
    """Of the source column."""
    settings: dict[str, Any] = {}
    """Fields of the fine-tune."""
    dynamic: bool = False
    """Its 4-bit checkpoints leave a share of the matrices in 16 bits."""


HARNESSES = [
    Harness(name="unsloth", pattern="unsloth", settings={"kernels": "fused", "loss": "chunked", "attention": "flash",
            "adapter_dtype": "fp32"}, dynamic=True),
    # its configurations take the loss by chunks since September 2024 (pull request 1390); the tutorials are older
    Harness(name="torchtune", pattern=r"torchtune.*finetune\.rst", settings={"adapter_dtype": "bf16",
            "autocast": False, "optimizer": "adamw_torch_fused"}),
    Harness(name="torchtune", pattern="torchtune", settings={"adapter_dtype": "bf16", "autocast": False,
            "optimizer": "adamw_torch_fused", "loss": "chunked"}),
    Harness(name="torchtitan", pattern="torchtitan", settings={"optimizer": "adamw_torch_fused", "autocast": False}),
    Harness(name="litgpt", pattern="litgpt", settings={"adapter_dtype": "bf16", "autocast": False,
            "lora_dropout": 0.05}),
    Harness(name="peft", pattern="huggingface/peft", settings={"autocast": False}),
    Harness(name="other", pattern=""),
]  # fmt: skip


class Case(NamedTuple):
    """What one row measured."""

    model: ModelFacts
    tune: FineTune
    measure: Measure
    loading: bool
    """Only the model, and its adapter where it has one, were loaded."""
    dynamic: bool
    about: str
    """The metric's own words."""


class Constants(Model):
    """Those of the memory model, and of the tables' harnesses."""

    memory: MemoryConstants = MEMORY
    share_in_16_bits: float = 0.04
    """Of the matrices in Unsloth's dynamic 4-bit checkpoints, weighted by size."""


SHIPPED = Constants()
GRID = {
    "activations": [0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.3],
    "fragmentation": [0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15],
    "share_in_16_bits": [0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.14],
}
PRIOR = {"activations": 1.0, "fragmentation": 0.06, "share_in_16_bits": 0.04}
WIDTH = {"activations": 0.15, "fragmentation": 0.05, "share_in_16_bits": 0.05}
"""What each constant would be without any row (the count itself; PyTorch reserves 3-15 % more than it allocates), and
how far from that it may well be."""


def rows(path: Path) -> list[Row]:
    """As the table has them."""
    with path.open(encoding="utf-8-sig") as file:
        return [
            {"source": ""} | {key: value or "" for key, value in row.items() if key} for row in csv.DictReader(file)
        ]


def measured(row: Row) -> float | None:
    """Bytes; None where the table has no number (a run that did not fit)."""
    value = number(row.get(COLUMN))
    if not value:
        return None
    over = re.search(r"\b(sum|total) (over|of|across)\b", row.get("metric", "").lower())
    return value * GIB / (int(number(row.get("n_gpu")) or 1) if over else 1)


def group(row: Row) -> str:
    """The repository that the measurement comes from."""
    return re.split(r"[@ ]", row["source"].strip())[0].removeprefix("https://").rstrip("/")


@cache
def catalog() -> Catalog:
    """The shipped one."""
    return load(None)


@cache
def _case(key: tuple[tuple[str, str], ...]) -> Case:
    return case(dict(key))


def predict(row: Row, constants: Constants = SHIPPED) -> float:
    """Bytes. Raises OrchError for a row that names what the catalog does not know."""
    return _estimate(row, constants).value


def interval(row: Row, constants: Constants = SHIPPED) -> tuple[float, float]:
    """About nine in ten measurements are between these bytes."""
    found = _estimate(row, constants)
    return found.low, found.high


def _estimate(row: Row, constants: Constants) -> Estimate:
    found = _case(tuple(sorted((key, value or "") for key, value in row.items() if key)))
    share = constants.share_in_16_bits if found.dynamic else 0
    if found.loading:
        value = _loaded(found, share, constants)
        high = value * (constants.memory.states_high + constants.memory.fragmentation)
        return Estimate(unit="bytes", value=value, low=value * constants.memory.states_low, high=high)
    estimate = memory(
        found.model, found.tune, measure=found.measure, share_in_16_bits=share, constants=constants.memory
    )
    if isinstance(estimate, Unknown):
        raise OrchError(estimate.reason)
    return estimate


def _loaded(found: Case, share: float, constants: Constants) -> float:
    """Weights and adapter; the loader's own fragments are those of a step."""
    weights = weight_bytes(found.model, found.tune.base_dtype, share_in_16_bits=share)
    trained = trained_parameters(found.model, found.tune)
    if isinstance(weights, Unknown) or isinstance(trained, Unknown):
        raise OrchError(f"the dimensions of {found.model.id} are not in the catalog")
    adapter = 0 if found.tune.method == "full" or "adapter" not in found.about else trained * 4
    from_16_bits = found.tune.base_dtype not in DTYPE_BYTES and not found.dynamic  # Unsloth's are quantized already
    largest = largest_tensor(found.model) * 2 if from_16_bits else 0
    reserved = 1 if found.measure == "allocated" else 1 + constants.memory.fragmentation
    return weights.total + (adapter + largest) * reserved


def case(row: Row) -> Case:
    """The fine-tune that a row describes."""
    model = catalog().model(row["model"])
    harness = next(one for one in HARNESSES if re.search(one.pattern, row["source"], re.IGNORECASE))
    method, precision = row["method"].strip().lower(), row.get("precision", "").strip().lower()
    if unknown := re.search(UNPLANNED, method):
        raise InputError(f"the method {unknown[0]!r} is not planned")
    dtype, dynamic = _dtype(precision, row), "dynamic" in precision and harness.dynamic
    kind = _kind(method, dtype, row)
    loading = bool(re.search(r"load-only|inference|-init$|model init", f"{method} {row.get('metric', '').lower()}"))
    settings = {
        "method": kind,
        "weights_dtype": dtype,
        "micro_batch_size": 1 if loading else int(number(row.get("batch")) or 1),
        "gradient_accumulation_steps": int(number(row.get("grad_accum")) or 1),
        **_tokens(method, row),
        **_adapter(method, kind, row, model),
        "checkpointing": _checkpointing(row),
        "loss": "full",
        "sharding": _sharding(row, harness.name),
        **_extras(row, method, precision, kind),
        **harness.settings,
        **({"optimizer": _optimizer(row["optimizer"])} if row.get("optimizer") else {}),
    }
    if row.get("compile", "").lower() == "true" or "compile" in row.get("parallelism", ""):
        settings["kernels"] = "fused"
    if "mixed" in precision:
        settings["autocast"] = True
    if harness.name == "litgpt" and kind == "qlora":
        settings["packed_inputs"] = "kept"  # its table is of October 2023
    tune = FineTune.model_validate(settings)
    return Case(model, tune, _measure(row.get("metric", "")), loading, dynamic, f"{method} {row.get('metric', '')}")


def number(text: str | None) -> float | None:
    """The first number of a cell, such as 4096 of `4k` or 2 of `2 per GPU`; None where there is none."""
    found = re.search(r"(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([kK]\b)?", (text or "").replace(",", ""))
    return None if found is None else float(found[1]) * (1024 if found[2] else 1)


def _extras(row: Row, method: str, precision: str, kind: str) -> dict[str, Any]:
    """What words anywhere in a row say."""
    text = " ".join([method, precision, row.get("optimizer", ""), row.get("parallelism", ""), row.get("notes", "")])
    text = text.lower()
    found = dict[str, Any]()
    if re.search(r"optim\w*[-_ ]in[-_ ](bwd|backward)|gradient[-_ ]release|fused backward", text):
        found["gradient_release"] = True
    if re.search(r"lora ?\(emb\)|embeddings? and (head|output)|modules_to_save", text):
        found["train_embeddings"] = True
    said = re.sub(r"activations? (cpu )?offload\w*", "", text)
    if re.search(r"offload|cpu_?adam", said) and "unsloth" not in row["source"].lower():
        states = re.search(r"optimi[sz]er (cpu )?offload|offload\w* (the )?optim|cpu_?adam|zero[-_ ]?[12]\b", said)
        found["offload"] = "optimizer" if states or "offload" in row.get("optimizer", "").lower() else "all"
    if kind == "full" and (zero_stage(text) or "deepspeed" in text):
        found["master_weights"] = True  # DeepSpeed keeps fp32 copies and states beside 16-bit weights
    return found


def _measure(metric: str) -> Measure:
    text = metric.lower()
    if "alloc" in text or "active" in text:
        return "allocated"
    return "reserved" if not text or re.search(r"reserved|torch|max_memory|peak memory", text) else "device"


def _dtype(precision: str, row: Row) -> str:
    """Of the frozen or trained weights. A method's `q` says 4 bits, where the precision is that of the arithmetic."""
    method = row["method"].lower()
    plain = precision.replace("float", "fp").replace("_", "")
    if re.search(r"\b[123](\.\d+)?-?bit|aqlm", f"{plain} {method}"):
        raise InputError(f"weights of {precision or method!r} are not planned")
    bits8 = re.search(r"int8|8-?bit", f"{plain} {method}")
    said = re.search(r"nf4|\bfp4|4-?bit|int4|bnb|awq|gptq|hqq", f"{plain} {method}")
    if said or (re.search(r"qlora|qdora", f"{plain} {method}") and not bits8):
        double = re.search(r"dq|double|dynamic|linears", plain)
        return "nf4-dq" if double or "litgpt" not in row["source"].lower() else "nf4"
    if bits8:
        return "int8"
    if "pretrain" in method or re.search(r"fp32|mixed|^32", plain) or "fp32 master" in row.get("optimizer", ""):
        return "fp32"
    return "fp16" if plain.startswith(("fp16", "f16")) else "bf16"


def _kind(method: str, dtype: str, row: Row) -> str:
    if re.search(r"full|pretrain|inference|^(sft|fft|ft|fine-?tun\w*)$", method):
        return "full" if dtype in ("fp32", "bf16", "fp16") else "qlora"
    if "dora" in method and "adora" not in method:
        return "dora"
    return "lora" if dtype in ("fp32", "bf16", "fp16") else "qlora"


def _tokens(method: str, row: Row) -> dict[str, Any]:
    """Length of the longest row."""
    meaning = row.get("seq_len_semantics", "")
    cap = int(number(row.get("seq_len")) or DEFAULT_LENGTH)
    if method in PROMPTS and row.get("trainable_params"):
        hidden = catalog().model(row["model"]).hidden_size or 1
        virtual = int(row["trainable_params"]) // hidden if method == "prompt_tuning" else 20
        cap += min(virtual, cap)
    usual = re.search(r"usually <= ?(\d+)", meaning)
    longest = min(cap, int(usual[1])) if usual else cap
    if "p99" in row.get("metric", "") and "bucketed" in meaning:
        longest = round(cap * PERCENTILE_TOKENS)
    return {"sequence_len": cap, "longest_row": longest, "packing": "packed" in meaning.lower()}


def _adapter(method: str, kind: str, row: Row, model: ModelFacts) -> dict[str, Any]:
    if kind == "full":
        return {}
    text, found = row.get("lora_targets", ""), dict[str, Any]()
    names = re.findall(r"[a-z]+_(?:proj|norm)", text) or _letters(text)
    if method in NO_INPUTS:
        found["target_modules"] = []
    elif names:
        found["target_modules"] = list(dict.fromkeys(names))
    elif re.search(r"\bq, ?v\b", text) or ("torchtune" in row["source"] and not text):
        found["target_modules"] = ["q_proj", "v_proj"]
    else:
        found["target_modules"] = "all-linear"
    rank = number(row.get("lora_rank")) or number((re.search(r"\br(?:ank)?[ =]*\d+", method) or [""])[0])
    if rank:
        found["lora_r"] = int(rank)
    trained = row.get("trainable_params", "")
    if (count := number(trained)) and "%" not in trained:
        unit = re.search(r"\d\s*([kmb])", trained.lower())
        found["trainable_parameters"] = round(count * {"k": 1e3 / 1024, "m": 1e6, "b": 1e9}[unit[1]] if unit else count)
    return found


def _letters(text: str) -> list[str]:
    """Matrices of `q,k,v,o`, `qkv` or `attention`; [] where it names none, or all of them."""
    words = text.lower()
    if re.search(r"mlp|gate|up|ffn|fc|all|linear|norm|self_attn", words):
        return []
    found = re.fullmatch(r"\W*([qkvo])\W*([qkvo])?\W*([qkvo])?\W*([qkvo])?\W*", words)
    if re.fullmatch(r"\W*att(entio)?n\W*(only)?\W*", words):
        return ["q_proj", "k_proj", "v_proj", "o_proj"]
    return [f"{letter}_proj" for letter in found.groups() if letter] if found else []


def _checkpointing(row: Row) -> str:
    """Where a row does not say: with, as nearly all fine-tunes of models this size are run."""
    text = row.get("grad_checkpointing", "").strip(' "').lower()
    if text in ("false", "none", "no", "0", "off", "disabled", "f", "n"):
        return "none"
    return "selective" if "selective" in text else "offloaded" if re.search("unsloth|offload", text) else "full"


DEGREES = {
    "tp": r"tensor[- _]?(?:model[- _])?parallel",
    "pp": r"pipeline[- _]?parallel",
    "cp": r"context[- _]?parallel",
}


def degrees(text: str, *names: str) -> dict[str, int]:
    """Of `tp4pp2`, `TP=4, PP=2`, `tensor parallel 4`; 1 where a row does not say."""
    words = text.lower()
    for name, written in DEGREES.items():
        words = re.sub(rf"{written}(?:[- _]?(?:size|degree))?", name, words)
    return {
        name: max(1, int(found[1])) if (found := re.search(rf"(?<![a-z]){name}[ =:_-]*(\d+)", words)) else 1
        for name in names
    }


def _sharding(row: Row, harness: str) -> Sharding:
    text, gpus = row.get("parallelism", "").lower(), int(number(row.get("n_gpu")) or 1)
    degree = degrees(text, "tp", "pp", "cp")
    if gpus > 1 and re.search(r"naive|device_?map|model parallel$", text):
        degree["pp"] = gpus  # whole layers on one GPU after the other
    others = math.prod(degree.values())
    data = max(1, gpus // others)
    strategy = "none" if data == 1 else "ddp"
    if data > 1 and "fsdp" in text:
        strategy = "fsdp1" if harness == "litgpt" else "fsdp2"
    if (stage := zero_stage(text)) and data > 1:
        strategy = f"zero{stage}"
    named = {"tensor": degree["tp"], "pipeline": degree["pp"], "context": degree["cp"]}
    return Sharding.model_validate({"strategy": strategy, "data": data, **named})


def zero_stage(text: str) -> str | None:
    """`3` of `ZeRO-3`, `deepspeed stage 3`, `ds_z3_offload`."""
    found = re.search(r"(?:zero|ds|deepspeed|\bz)[-_ ]?(?:z|zero|stage)?[-_ ]?([123])", text.lower())
    return found[1] if found else None


def _optimizer(text: str) -> str:
    word = re.sub(r"[-_ ]", "", text.lower())
    if unknown := re.search(r"galore|apollo|lomo|badam|sophia|mezo|schedulefree|lamb|shampoo|soap|came\b", word):
        raise InputError(f"the optimizer {unknown[0]!r} is not planned")
    bits = "8bit" if "8bit" in word else "4bit" if "4bit" in word else ""
    if "lion" in word:
        return f"{'paged_' if 'paged' in word else ''}lion_{bits or '32bit'}"
    if "paged" in word:
        return f"paged_adamw_{bits or '32bit'}"
    if plain := next((name for name in ("sgd", "adafactor", "adagrad", "rmsprop", "muon") if name in word), None):
        return plain
    return {"8bit": "adamw_bnb_8bit", "4bit": "adamw_torch_4bit"}.get(bits) or (
        "adamw_torch_fused" if re.search("fp32|fused", word) else "adamw_torch"
    )


def fit(table: list[Row]) -> Constants:
    """The constants with the least mean |log error|, each held near what it would be without any row."""
    known = [row for row in table if measured(row) and _predictable(row)]

    def loss(values: dict[str, float]) -> float:
        held = sum(((value - PRIOR[name]) / WIDTH[name]) ** 2 for name, value in values.items())
        return mean_error(known, lambda row: predict(row, _with(values)), measured) + 0.005 * held

    return _with(descend(PRIOR, GRID, loss))


def descend(
    start: dict[str, float], grid: dict[str, list[float]], loss: Callable[[dict[str, float]], float]
) -> dict[str, float]:
    """Coordinate descent over a grid, until a round gains nothing."""
    best, least = dict(start), loss(start)
    for _ in range(6):
        before = least
        for name, values in grid.items():
            for value in values:
                candidate = best | {name: value}
                if (found := loss(candidate)) < least:
                    best, least = candidate, found
        if before - least < 1e-4:
            break
    return best


def mean_error(table: list[Row], predicted: Callable[[Row], float], truth: Callable[[Row], float | None]) -> float:
    """Mean |log error|; a source counts by the square root of its rows, so that none outvotes the others."""
    by: dict[str, list[float]] = {}
    for row in table:
        by.setdefault(group(row), []).append(abs(math.log(predicted(row) / (truth(row) or 1))))
    weights = {name: math.sqrt(len(errors)) for name, errors in by.items()}
    return sum(weights[name] * sum(errors) / len(errors) for name, errors in by.items()) / sum(weights.values())


def _with(values: dict[str, float]) -> Constants:
    inner = {name: value for name, value in values.items() if name in MemoryConstants.model_fields}
    return Constants(memory=MEMORY.model_copy(update=inner), share_in_16_bits=values["share_in_16_bits"])


def _predictable(row: Row) -> bool:
    try:
        predict(row)
    except OrchError:
        return False
    return True


def baselines(row: Row) -> dict[str, float]:
    """What a user has today: accelerate's estimate for Adam, four times the weights; and 1.2 times the weights."""
    found = _case(tuple(sorted((key, value or "") for key, value in row.items() if key)))
    weights = weight_bytes(found.model, found.tune.base_dtype)
    assert not isinstance(weights, Unknown), "the row was predicted"
    plain = weights.total
    return {"accelerate estimate-memory": plain * (1 if found.loading else 4), "1.2 x weights": plain * 1.2}


def fits(row: Row, constants: Constants = SHIPPED) -> bool | None:
    """Whether the run is predicted to fit its GPU, the CUDA context included; None where the GPU is unknown."""
    there = capacity(row)
    found = _case(tuple(sorted((key, value or "") for key, value in row.items() if key)))
    outside = 0 if found.measure == "device" else constants.memory.context_bytes
    return None if there is None else predict(row, constants) + outside <= there


def capacity(row: Row) -> float | None:
    """Bytes that the row's GPU shows."""
    noted = re.search(r"GPU max ([\d.]+) GiB", row.get("notes", ""))
    if noted:
        return float(noted[1]) * GIB
    gpu = catalog().find_gpu(row["gpu"]) if row.get("gpu") else None
    return None if gpu is None else float(gpu.memory_visible)


def ran_out(row: Row) -> bool:
    """The run did not fit."""
    return bool(re.search(r"\boom\b|out of memory", " ".join(map(str, row.values())), re.IGNORECASE))
