"""Fine-tunes one model on one node: TRL's SFTTrainer, PEFT and bitsandbytes; the same code on CPU, CUDA and ROCm.

Request: config (the recipe's `train` section), base_model, train (parquet: input_ids, assistant_masks), rows (jsonl:
the same rows as chats), directory. Writes `adapter` (or `model` for full fine-tuning) into the directory, with the
tokenizer, the token contract and `training.json`, which says how the base was loaded. Checkpoints lie in `checkpoints`
(`checkpoints.py`). SIGTERM saves a checkpoint and exits with 143; the same request later goes on from it.
"""

import errno
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    TrainerCallback,
    set_seed,
)
from trl import SFTConfig, SFTTrainer

from orchestrator import jsonlines, token_contract
from orchestrator.errors import InputError, disk_full, is_disk_full
from orchestrator.fencing import Writer, publish
from orchestrator.plugins import nearest
from orchestrator.stages.train import nothing_to_train, starts_from_base
from orchestrator.token_contract import TokenContract
from orchestrator.workers import checkpoints, contract, loading
from orchestrator.workers.protocol import emit, main, may_be_silent, steps_follow, writer_of

LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate")
EXIT_ON_SIGTERM = 143
CHECK_S = 10.0
"""Between two looks whether a newer attempt has begun; then we hold its GPU."""
SILENT_S = 3600.0
"""For loading the base, a checkpoint, or what is written at the end."""
OWNED = {  # SFTConfig's name -> the recipe's, for a clear refusal in `extra`
    "max_length": "sequence_len",
    "packing": "sample_packing",
    "per_device_train_batch_size": "micro_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "num_train_epochs": "num_epochs",
    "max_steps": "max_steps",
    "learning_rate": "learning_rate",
    "lr_scheduler_type": "lr_scheduler",
    "warmup_steps": "warmup_steps",
    "seed": "seed",
    "save_steps": "save_steps",
    "output_dir": None,
    "logging_steps": None,
    "logging_strategy": None,
    "save_strategy": None,
    "save_total_limit": None,
    "assistant_only_loss": None,
    "dataset_kwargs": None,
}


def work(request: dict[str, Any]) -> dict[str, Any]:
    """Train, save, and say what came out. Raises InputError when the disk is full, wherever that shows."""
    emit("pid", pid=os.getpid())
    with full_disk_is_named(Path(request["directory"])):
        return train(request, Stop())


def train(request: dict[str, Any], stop: "Stop") -> dict[str, Any]:
    """Load, fit, check, save."""
    config, directory = request["config"], Path(request["directory"])
    set_seed(config["seed"])
    device, dtype = pick_device()
    arguments = training_arguments(config, directory, device, dtype)
    tokenizer = AutoTokenizer.from_pretrained(request["base_model"])
    model, quantization = load_base(request["base_model"], config["adapter"], device, dtype)
    end_of_turn = end_of_turn_ids(tokenizer, model)
    progress = Progress()
    writer = writer_of(request)
    trainer = Trainer(
        end_of_turn=end_of_turn,
        writer=writer,
        model=model,
        args=arguments,
        train_dataset=datasets.Dataset.from_parquet(request["train"], cache_dir=str(directory / "cache")),
        processing_class=tokenizer,
        peft_config=adapter_config(config, model),
        callbacks=[progress, stop, *([StopWhenStale(writer)] if writer else [])],
    )
    # TRL casts a quantized model's adapter to bf16. Without bf16 arithmetic that only loses small updates.
    for parameter in trainer.model.parameters():
        if parameter.requires_grad and dtype == torch.float32:
            parameter.data = parameter.data.float()
    start = keep_start(trainer, config, directory)
    started = time.monotonic()
    fit(trainer, directory / "checkpoints")
    if stop.asked:
        emit("log", message=f"stopped at step {trainer.state.global_step}; a checkpoint is saved")
        os._exit(EXIT_ON_SIGTERM)
    trainer.require_end_of_turn_loss()
    about = {
        "method": config["adapter"],
        "quantization": quantization,
        "base_model": request["base_model"],
        "dtype": dtype_name(dtype),
        "device": str(device),
        "seed": config["seed"],
        "end_of_turn_ids": sorted(end_of_turn),
        "versions": {name: version(name) for name in LIBRARIES},
    }
    kept = contract_of(trainer, tokenizer, about, jsonlines.read(Path(request["rows"])))
    name = "model" if config["adapter"] == "full" else "adapter"
    publish(save(trainer, tokenizer, about, kept, directory / f"{name}.partial", start), directory / name, writer)
    shutil.rmtree(directory / "cache", ignore_errors=True)
    return {
        "artifacts": {name: str(directory / name)},
        "metrics": metrics(trainer, time.monotonic() - started),
        "report": {
            "loss_curve": loss_curve(trainer.state.log_history),
            "training": about,
            "token_contract": kept.summary(),
        },
    }


def pick_device() -> tuple[torch.device, torch.dtype]:
    """The accelerator in bf16 where it has that, else the CPU in fp32 (bf16 on a CPU without AMX is slower)."""
    if not torch.cuda.is_available():  # true for ROCm, too
        return torch.device("cpu"), torch.float32
    return torch.device("cuda", 0), torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def training_arguments(config: dict[str, Any], directory: Path, device: torch.device, dtype: torch.dtype) -> SFTConfig:
    """TRL's own arguments; InputError for anything in `extra` that it does not take or that the recipe owns."""
    extra = config["extra"]
    for key in extra:
        if key in OWNED:
            where = f"; set train.{OWNED[key]}" if OWNED[key] else ""
            raise InputError(f"train.extra.{key} is set by orch itself{where}")
    values = {
        "output_dir": str(directory / "checkpoints"),
        "max_length": config["sequence_len"],
        "packing": config["sample_packing"],
        "per_device_train_batch_size": config["micro_batch_size"],
        "gradient_accumulation_steps": config["gradient_accumulation_steps"],
        "num_train_epochs": config["num_epochs"],
        "max_steps": config["max_steps"] or -1,
        "learning_rate": config["learning_rate"],
        "lr_scheduler_type": config["lr_scheduler"],
        "warmup_steps": config["warmup_steps"],
        "seed": config["seed"],
        "save_steps": config["save_steps"],
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": device.type == "cpu",
        "bf16": dtype == torch.bfloat16,
        "fp16": dtype == torch.float16,
        "gradient_checkpointing": device.type != "cpu",
        "dataloader_pin_memory": device.type != "cpu",
    }
    try:
        return SFTConfig(**values | extra)
    except (TypeError, ValueError) as error:
        raise InputError(f"train.extra: TRL's SFTConfig refuses it: {error}") from error


def load_base(base: str, adapter: str, device: torch.device, dtype: torch.dtype) -> tuple[Any, dict[str, Any] | None]:
    """The base model on `device`, and how it was quantized (None where it was not)."""
    quantization = None
    if adapter == "qlora":
        # BitsAndBytesConfig's own defaults (fp4, fp32 compute, no double quantization) are not QLoRA's.
        quantization = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": dtype_name(dtype),
        }
    settings = BitsAndBytesConfig(**quantization) if quantization else None
    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=dtype, quantization_config=settings, device_map={"": device}
    )
    return model, quantization


def dtype_name(dtype: torch.dtype) -> str:
    """As configurations write it: "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def adapter_config(config: dict[str, Any], model: torch.nn.Module) -> LoraConfig | None:
    """PEFT's settings, None for full fine-tuning. InputError when no module would get an adapter."""
    if config["adapter"] == "full":
        return None
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    settings = LoraConfig(
        r=config["lora_r"],
        lora_alpha=config["lora_alpha"],
        lora_dropout=config["lora_dropout"],
        target_modules=config["lora_target_modules"],
        use_dora=config["adapter"] == "dora",
        use_rslora=config["peft_use_rslora"],
        init_lora_weights=config["peft_init_lora_weights"],
        modules_to_save=config["lora_modules_to_save"] or None,
        task_type="CAUSAL_LM",
    )
    check_saved(config["lora_modules_to_save"], model)
    if config["lora_target_modules"] != "all-linear":
        from peft.tuners.tuners_utils import check_target_module_exists

        if not any(check_target_module_exists(settings, name) for name in linear):
            raise nothing_to_train(config["lora_target_modules"], linear)
    return settings


def check_saved(names: list[str], model: torch.nn.Module) -> None:
    """Raises InputError for a module to be trained as a whole that the model lacks, or has in 4 bits."""
    found = dict(model.named_modules())
    for name in names:
        mine = [module for path, module in found.items() if path == name or path.endswith(f".{name}")]
        whole = sorted({path.rpartition(".")[2] for path, module in found.items() if hasattr(module, "weight")})
        if not mine:
            raise InputError(f"lora_modules_to_save: the base model has no module {name!r}; {nearest(name, whole)}")
        if any(weight.dtype in (torch.uint8, torch.int8) for module in mine for weight in module.parameters()):
            raise InputError(
                f"lora_modules_to_save: {name} is in 4 bits and cannot be trained as a whole",
                next_step="use adapter lora, or leave it out: the adapter reaches it",
            )


def keep_start(trainer: SFTTrainer, config: dict[str, Any], directory: Path) -> Path | None:
    """The adapter before training, where it starts from the base's weights: what is saved is the difference to it.

    Made again at every start: the base is changed anew, too, and a decomposition is unique only up to signs.
    """
    if config["adapter"] == "full" or not starts_from_base(config["peft_init_lora_weights"]):
        return None
    start = directory / "start"
    shutil.rmtree(start, ignore_errors=True)
    trainer.accelerator.unwrap_model(trainer.model).save_pretrained(str(start))
    return start


def end_of_turn_ids(tokenizer: Any, model: Any) -> set[int]:
    """Tokens that stop generation: the tokenizer's EOS and those of the generation config."""
    listed = model.generation_config.eos_token_id
    ids = set(listed if isinstance(listed, list) else [] if listed is None else [listed])
    return ids | ({tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set())


class Trainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer that publishes its checkpoints, and counts on how many end-of-turn tokens a loss was computed."""

    def __init__(self, *, end_of_turn: set[int], writer: Writer | None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._writer = writer
        self._end_of_turn = torch.tensor(sorted(end_of_turn))
        self._ends_trained: torch.Tensor | int = 0

    def compute_loss(self, model: Any, inputs: dict[str, Any], *arguments: Any, **named: Any) -> Any:
        labels = inputs["labels"]
        self._ends_trained = self._ends_trained + torch.isin(labels, self._end_of_turn.to(labels.device)).sum()
        return super().compute_loss(model, inputs, *arguments, **named)

    def _get_output_dir(self, trial: Any) -> str:
        """Where checkpoints are written before they get their names."""
        return str(Path(self.args.output_dir) / "partial")

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        may_be_silent(SILENT_S)
        step, partial = self.state.global_step, Path(self._get_output_dir(trial))
        shutil.rmtree(partial, ignore_errors=True)
        super()._save_checkpoint(model, trial)
        made = partial / f"{checkpoints.PREFIX}{step}"
        saved = checkpoints.publish(made, Path(self.args.output_dir), step, self._writer)
        emit("checkpoint", step=step, path=str(saved), fence=self._writer.fence if self._writer else None)
        steps_follow()

    def require_end_of_turn_loss(self) -> None:
        """Raises InputError when training ran and never saw an end-of-turn label: the model would not stop."""
        if isinstance(self._ends_trained, torch.Tensor) and not self._ends_trained.item():
            raise InputError(
                "no end-of-turn token was among the trained tokens: the model did not learn to stop",
                next_step="raise sequence_len, so that the answers' ends are not cut off",
            )


class Progress(TrainerCallback):  # type: ignore[misc]
    """Sends a progress event at every logging step, and writes the speed into the history that checkpoints keep."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, float] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._first = (time.monotonic(), state.global_step)
        steps_follow()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        may_be_silent(SILENT_S)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs or self._first is None:
            return
        now, tokens = time.monotonic(), float(logs.get("num_tokens", 0))
        since, before = self._last or (self._first[0], 0.0)
        speed = (tokens - before) / max(now - since, 1e-9)
        self._last = (now, tokens)
        state.log_history[-1]["tokens_per_s"] = speed
        done = max(state.global_step - self._first[1], 1)
        eta = (now - self._first[0]) / done * (state.max_steps - state.global_step)
        emit(
            "progress",
            step=state.global_step,
            steps=state.max_steps,
            loss=float(logs["loss"]),
            tokens_per_s=speed,
            eta_s=eta,
        )


class StopWhenStale(TrainerCallback):  # type: ignore[misc]
    """Raises StaleClaimError once a newer attempt has begun."""

    def __init__(self, writer: Writer) -> None:
        self._writer, self._looked = writer, time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if time.monotonic() - self._looked > CHECK_S:
            self._writer.check()
            self._looked = time.monotonic()


class Stop(TrainerCallback):  # type: ignore[misc]
    """On SIGTERM: finish the step, save a checkpoint, stop. Before the first step there is nothing to save."""

    def __init__(self) -> None:
        self.asked = False
        self._training = False
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, *_: Any) -> None:
        self.asked = True
        if not self._training:
            os._exit(EXIT_ON_SIGTERM)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._training = True

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.asked:
            control.should_save = True
            control.should_training_stop = True


def fit(trainer: SFTTrainer, folder: Path) -> None:
    """Train from the newest checkpoint that is whole, if there is one."""
    checkpoint = checkpoints.newest(folder, lambda message: emit("log", message=message))
    if checkpoint is not None:
        emit("log", message=f"resuming from {checkpoint.name}")
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


class full_disk_is_named:  # noqa: N801 - reads as a statement
    """Turns every form in which libraries report a full disk into the one clear error."""

    def __init__(self, where: Path) -> None:
        self._where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None and any(means_disk_full(cause) for cause in chain(error)):
            raise disk_full(self._where) from error


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def means_disk_full(error: BaseException) -> bool:
    """safetensors keeps the text of the system's error only; torch's zip writer (inline_container.cc) not even that."""
    if isinstance(error, OSError) and is_disk_full(error):
        return True
    signs = (
        os.strerror(errno.ENOSPC),
        os.strerror(errno.EDQUOT),
        "PytorchStreamWriter failed writing",
        "inline_container.cc",
    )
    return any(sign in str(error) for sign in signs)


def contract_of(
    trainer: SFTTrainer, tokenizer: Any, about: dict[str, Any], rows: list[dict[str, Any]]
) -> TokenContract:
    """The token contract of what was trained; an event says so where no short answer ends by itself."""
    model = trainer.accelerator.unwrap_model(trainer.model).eval()
    ends = loading.end_ids(tokenizer, loading.Training.model_validate(about))
    found = contract.of_model(model, tokenizer, rows, ends, model.generation_config)
    if found.golden and not found.golden.ended:
        emit(
            "log",
            message="warning: the trained model does not end its answers: to none of the"
            f" {contract.CANDIDATES} shortest training prompts did its answer end by itself; train longer, and gate"
            " parity.reference.stops",
        )
    return found


def save_difference(model: Any, start: Path, target: Path) -> None:
    """A plain adapter for the base as it was, of twice the rank: what was trained, less what the training started with.

    W - A0 B0 + A B = W + [A | A0] [B | -B0].
    """
    model.save_pretrained(str(target), path_initial_model_for_weight_conversion=str(start))


def save(
    trainer: SFTTrainer, tokenizer: Any, about: dict[str, Any], kept: TokenContract, partial: Path, start: Path | None
) -> Path:
    """Write the adapter (or model) folder: tokenizer, chat template and stop tokens go with it."""
    shutil.rmtree(partial, ignore_errors=True)
    trainer.save_model(str(partial))
    if start:
        save_difference(trainer.accelerator.unwrap_model(trainer.model), start, partial)
    tokenizer.save_pretrained(partial)
    trainer.accelerator.unwrap_model(trainer.model).generation_config.save_pretrained(partial)
    token_contract.write(kept, partial)
    vocabulary = Path(about["base_model"]) / "tokenizer.model"
    if vocabulary.is_file():  # llama.cpp's converter reads it; `save_pretrained` does not write it
        shutil.copy(vocabulary, partial)
    (partial / "training_args.bin").unlink(missing_ok=True)  # a pickle that nobody reads
    (partial / "training.json").write_text(json.dumps(about, indent=2, default=str) + "\n")
    return partial


def loss_curve(history: list[dict[str, Any]]) -> list[list[float]]:
    """[[step, loss, tokens/s], ...] of the whole run, resumed or not."""
    return [[entry["step"], entry["loss"], entry.get("tokens_per_s", 0.0)] for entry in history if "loss" in entry]


def metrics(trainer: SFTTrainer, seconds: float) -> dict[str, float]:
    """Numbers of the whole run; `loss` is the mean of the last tenth of the steps."""
    curve = loss_curve(trainer.state.log_history)
    tail = curve[-max(1, len(curve) // 10) :]
    speeds = sorted(entry[2] for entry in curve)
    return {
        "loss": sum(entry[1] for entry in tail) / len(tail),
        "steps": trainer.state.global_step,
        "tokens_per_s": speeds[len(speeds) // 2],
        "seconds": seconds,
        "trainable_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
    }


if __name__ == "__main__":
    main(work, silent_s=SILENT_S)
