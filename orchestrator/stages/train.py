"""The train stage: QLoRA, LoRA or full fine-tuning; the work is done by the worker program `train`.

`check_base_model` needs no heavy library: `orch run` calls it before anything starts, when the base model is a folder
on this machine.

Leaves out: more than one node, preference tuning.
"""

import json
import re
import struct
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator

from orchestrator.config import Model
from orchestrator.engines.base import Adapter
from orchestrator.errors import InputError, NotAllowedError, WorkerDiedError
from orchestrator.plugins import nearest
from orchestrator.stages.base import Context, Outputs, Resources

LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate")
WORKERS = ("train", "loading", "contract")
METRICS = ("loss", "steps", "tokens_per_s", "seconds", "trainable_parameters")
ON_ACCELERATOR = True
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
ALL_LINEAR = "all-linear"
MAX_HALVINGS = 2
"""Of micro_batch_size, when the accelerator's memory runs out: the plan has computed that it fits."""
FROM_BASE = ("pissa", "olora")
STARTS = ("gaussian", "orthogonal", *FROM_BASE)
_OTHER_STARTS = {
    "loftq": "leaves a base of its own, which no other copy of it is and no plain adapter makes up for",
    "eva": "needs the activations of the data before it starts, which is not available",
    "corda": "needs the activations of the data before it starts, which is not available",
    "lora_ga": "needs the gradients of the data before it starts, which is not available",
    "false": "starts with random answers, for debugging PEFT",
}
"""Of PEFT: why they are refused."""


class Config(Model):
    """How the base model is fine-tuned; the names are axolotl's."""

    adapter: Literal["qlora", "lora", "dora", "full"] = "qlora"
    """`qlora`: adapters on 4-bit (NF4) weights; `lora`: adapters on 16- or 32-bit weights; `dora`: such adapters and a
    trained magnitude for each output, which only a merged export serves; `full`: all weights."""
    lora_r: int = Field(default=16, ge=1)
    """Rank of the adapter's matrices."""
    lora_alpha: int = Field(default=32, ge=1)
    """Scale of the adapter; its output is multiplied by lora_alpha / lora_r."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapter's inputs that is dropped while training."""
    lora_target_modules: list[str] | str = ALL_LINEAR
    """`all-linear`, a list of module names (the end of their path is enough), or one regular expression."""
    lora_modules_to_save: list[str] = []
    """Modules that are trained as a whole beside the adapter, such as embed_tokens and lm_head; only a merged export
    serves them."""
    peft_use_rslora: bool = False
    """Scale the adapter by lora_alpha / sqrt(lora_r), which keeps large ranks from learning less."""
    peft_init_lora_weights: bool | str = True
    """How the adapter starts. true, gaussian, orthogonal: without any effect. pissa, pissa_niter_4, olora: with the
    largest part of the base's own weights; what is saved is then a plain adapter of twice the rank."""
    sequence_len: int = Field(default=1024, ge=8)
    """Tokens after which a row is cut off."""
    sample_packing: bool = False
    """Put several rows into one sequence of sequence_len; each attends only to itself."""
    micro_batch_size: int = Field(default=1, ge=1)
    """Rows (or packed sequences) in one forward pass on one device."""
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    """Forward passes per optimizer step."""
    num_epochs: float = Field(default=1, gt=0)
    """Passes over the training rows."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps after which training ends, whatever num_epochs says."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """Peak learning rate."""
    lr_scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    """How the learning rate falls after its peak."""
    warmup_steps: float = Field(default=0.03, ge=0)
    """Steps in which the learning rate rises to its peak; below 1 it is a share of all steps."""
    seed: int = 17
    """Seed of the adapter's start values, of dropout and of the order of rows."""
    save_steps: int = Field(default=100, ge=1)
    """Optimizer steps between two checkpoints."""
    extra: dict[str, Any] = {}
    """Anything else that TRL's SFTConfig takes, checked by it before the model is loaded."""

    @field_validator("peft_init_lora_weights")
    @classmethod
    def _a_start(cls, value: bool | str) -> bool | str:
        if value is True or value in STARTS or re.fullmatch(r"pissa_niter_[1-9]\d*", str(value)):
            return value
        if str(value).lower() in _OTHER_STARTS:
            raise ValueError(f"{value} {_OTHER_STARTS[str(value).lower()]}; use true, {', '.join(STARTS)}")
        raise ValueError(
            f"no way to start is called {value!r}; {nearest(str(value), ['true', *STARTS, 'pissa_niter_4'])}"
        )

    @field_validator("lora_target_modules")
    @classmethod
    def _readable(cls, value: list[str] | str) -> list[str] | str:
        if isinstance(value, str):
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"{value!r} is not a regular expression: {error}") from error
        return value


def adapter_of(config: Config) -> Adapter | None:
    """The adapter that the stage leaves, as engines see it; None after full fine-tuning.

    One that started from the base's weights is saved as the difference to its start: of twice the rank, on the base as
    it was.
    """
    if config.adapter == "full":
        return None
    twice, rslora = starts_from_base(config.peft_init_lora_weights), config.peft_use_rslora
    return Adapter(
        rank=config.lora_r * (2 if twice else 1),
        alpha=config.lora_alpha * ((2**0.5 if rslora else 2) if twice else 1),
        use_rslora=rslora,
        use_dora=config.adapter == "dora",
        init_lora_weights=True if twice else config.peft_init_lora_weights,
        modules_to_save=tuple(config.lora_modules_to_save),
        target_modules=_last_parts(config.lora_target_modules),
    )


def _last_parts(targets: list[str] | str) -> tuple[str, ...]:
    """Of names; a pattern, and all-linear, are not known without the model."""
    return tuple(sorted({name.rpartition(".")[2] for name in targets})) if isinstance(targets, list) else ()


def starts_from_base(init_lora_weights: bool | str) -> bool:
    """Whether a way to start takes the adapter out of the base's weights, which are then others while it trains."""
    return isinstance(init_lora_weights, str) and init_lora_weights.startswith(FROM_BASE)


def estimate(config: Config) -> Resources:
    """One core is reserved, so that warm engines fit beside it on a laptop; it computes on all that are idle."""
    return Resources(num_cpus=1)


def run(config: Config, context: Context) -> Outputs:
    """Train from the newest complete checkpoint of the stage's folder, or from the start."""
    base_model = context.inputs["prepare"].artifacts["base_model"]
    if Path(base_model).is_dir():
        check_base_model(Path(base_model), config)
    request = {
        "base_model": base_model,
        "train": context.inputs["data"].artifacts["train"],
        "rows": context.inputs["data"].artifacts["train_rows"],
        "directory": str(context.directory),
    }
    result, batch = _fit(config, context, request)
    report = result["report"] | ({"smaller_batch": batch._asdict()} if batch.halvings else {})
    return Outputs(artifacts=result["artifacts"], metrics=result["metrics"], report=report)


class Batch(NamedTuple):
    """How the rows of one optimizer step are divided; their number is always the same."""

    micro_batch_size: int
    gradient_accumulation_steps: int
    halvings: int = 0

    def smaller(self) -> "Batch | None":
        """Half the rows at a time, or the next divisor below; None where that is not possible, or was done twice."""
        size = next((n for n in range(self.micro_batch_size // 2, 0, -1) if self.micro_batch_size % n == 0), None)
        if size is None or self.halvings == MAX_HALVINGS:
            return None
        more = self.micro_batch_size // size
        return Batch(size, self.gradient_accumulation_steps * more, self.halvings + 1)


def _fit(config: Config, context: Context, request: dict[str, Any]) -> tuple[dict[str, Any], Batch]:
    """The worker's result. Raises NotAllowedError when the accelerator's memory is too small for any batch."""
    kept = context.directory / "batch.json"  # a later attempt begins with what this one has found out
    batch = Batch(*json.loads(kept.read_text())) if kept.exists() else Batch(
        config.micro_batch_size, config.gradient_accumulation_steps
    )  # fmt: skip
    while True:
        divided = {name: value for name, value in batch._asdict().items() if name != "halvings"}
        try:
            return context.worker("train", request | {"config": config.model_dump() | divided}), batch
        except WorkerDiedError as error:
            if error.cause != "gpu_memory":
                raise
            too_large, batch = batch, _smaller(batch, error)
            kept.write_text(json.dumps(batch))
            context.emit(
                "smaller_batch",
                message=f"out of GPU memory with micro_batch_size {too_large.micro_batch_size}; going on with"
                f" {batch.micro_batch_size} and gradient_accumulation_steps {batch.gradient_accumulation_steps}",
                **batch._asdict(),
            )


def _smaller(batch: Batch, error: WorkerDiedError) -> Batch:
    found = batch.smaller()
    if found is None:
        raise NotAllowedError(
            f"training does not fit into the memory of the accelerator with micro_batch_size {batch.micro_batch_size}:"
            f" {error.message.splitlines()[0]}",
            next_step="take adapter qlora, a smaller sequence_len or micro_batch_size, or an accelerator with more"
            " memory (`orch plan` shows what needs how much)",
        ) from error
    return found


def check_base_model(directory: Path, config: Config) -> None:
    """Raises InputError unless `directory` is a model that this configuration can train, and an export can merge.

    Reads config.json and the names in the safetensors headers, no weights.
    """
    missing = missing_parts(directory)
    if missing:
        raise InputError(
            f"{directory} is not a model directory: {'; '.join(missing)}",
            next_step="give a hub id, or a folder that `save_pretrained` wrote",
        )
    if method := quantized_by(directory):
        raise InputError(
            f"the weights in {directory} are quantized already, by {method}: they can be neither trained as they are"
            " nor merged with an adapter",
            next_step="give the 16-bit model that it was made of; adapter qlora quantizes while it loads",
        )
    if config.adapter == "full" or config.lora_target_modules == ALL_LINEAR:
        return
    modules = linear_modules(directory)
    if modules and not any(is_target(name, config.lora_target_modules) for name in modules):
        raise nothing_to_train(config.lora_target_modules, modules)


def quantized_by(directory: Path) -> str | None:
    """The method that config.json names, such as awq or bitsandbytes; None for plain weights."""
    settings = json.loads((directory / "config.json").read_text(encoding="utf-8")).get("quantization_config")
    return str(settings.get("quant_method", "an unknown method")) if isinstance(settings, dict) else None


def missing_parts(directory: Path) -> list[str]:
    """What a Hugging Face model directory needs and this one lacks, one sentence each."""
    if not directory.is_dir():
        return ["no such folder"]
    missing = []
    try:
        described = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        if not isinstance(described, dict) or not (described.get("model_type") or described.get("architectures")):
            missing.append("config.json names neither model_type nor architectures")
    except FileNotFoundError:
        missing.append("no config.json")
    except ValueError:
        missing.append("config.json is not JSON")
    if not _weight_files(directory) and not any(directory.glob("pytorch_model*.bin")):
        missing.append("no weights (*.safetensors)")
    if not any((directory / name).is_file() for name in TOKENIZER_FILES):
        missing.append(f"no tokenizer ({' or '.join(TOKENIZER_FILES[:2])})")
    return missing


def linear_modules(directory: Path) -> list[str]:
    """Paths of the modules with a two-dimensional weight, embeddings left out; empty without safetensors files."""
    names = []
    for file in _weight_files(directory):
        for name, tensor in _safetensors_header(file).items():
            two = name.endswith(".weight") and len(tensor.get("shape", ())) == 2
            if two and "embed" not in name and not name.startswith("lm_head"):
                names.append(name.removesuffix(".weight"))
    return sorted(names)


def is_target(module: str, targets: list[str] | str) -> bool:
    """Whether PEFT would put an adapter on `module`: a regular expression matches all of it, a list its end."""
    if targets == ALL_LINEAR:
        return True
    if isinstance(targets, str):
        return re.fullmatch(targets, module) is not None
    return any(module == target or module.endswith(f".{target}") for target in targets)


def nothing_to_train(targets: list[str] | str, modules: list[str]) -> InputError:
    """The error for targets that no module matches."""
    ends = sorted({module.rpartition(".")[2] for module in modules})
    return InputError(
        f"the adapter has nothing to train: lora_target_modules {targets!r} matches no linear module of the base model",
        next_step=f"use {ALL_LINEAR}, or some of: {', '.join(ends)}",
    )


def _weight_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.safetensors"))


def _safetensors_header(file: Path) -> dict[str, Any]:
    """Tensor name -> {dtype, shape, data_offsets}: 8 bytes of length (little endian), then JSON."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
    except (struct.error, ValueError, MemoryError, OverflowError) as error:
        raise InputError(f"{file} is not a safetensors file: {error}") from error
    header.pop("__metadata__", None)
    return dict(header)
