"""Models as they were trained, for the workers that evaluate, merge and compare them.

`training.json`, which the train worker leaves beside an adapter or a full model, says how the base was loaded. The same
calls run on CPU, CUDA and ROCm.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from pydantic import BaseModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GenerationConfig

from orchestrator.errors import InputError


class Training(BaseModel):
    """What is read of `training.json`; it says more."""

    method: str
    """qlora, lora or full."""
    base_model: str
    """Folder or hub id."""
    dtype: str
    """Of the weights that are not quantized: float32, bfloat16 or float16."""
    quantization: dict[str, Any] | None = None
    """Settings of bitsandbytes, None where the base was not quantized."""
    end_of_turn_ids: list[int] = []
    """Tokens that end an answer."""


def read_training(tuned: Path) -> Training:
    """Raises InputError for a folder without `training.json`."""
    try:
        return Training.model_validate_json((tuned / "training.json").read_text())
    except FileNotFoundError as error:
        raise InputError(f"{tuned} has no training.json: it is not an adapter or model of the train stage") from error


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer that the chats were rendered with. Raises InputError when it has no chat template."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if not tokenizer.chat_template:
        raise InputError(
            f"the tokenizer in {folder} has no chat template", next_step="add chat_template.jinja to the base"
        )
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base(training: Training) -> Any:
    """The base exactly as training loaded it: for QLoRA in the same 4-bit format."""
    settings = BitsAndBytesConfig.from_dict(training.quantization) if training.quantization else None
    return _load(training.base_model, training.dtype, settings)


def load_tuned(tuned: Path, training: Training) -> Any:
    """Base and adapter as they were trained (a PeftModel), or the fully tuned model."""
    if training.method == "full":
        return load_plain(tuned, training.dtype)
    return with_adapter(load_base(training), tuned).eval()


def with_adapter(base: Any, tuned: Path) -> Any:
    """Base and adapter (a PeftModel). Raises InputError for an adapter whose matrices do not fit the base."""
    try:
        return PeftModel.from_pretrained(base, str(tuned))
    except (RuntimeError, ValueError) as error:
        if isinstance(error, RuntimeError) and "size mismatch" not in str(error):
            raise
        raise InputError(
            f"the adapter in {tuned} does not fit its base {base.config.name_or_path}: {_first_line(error)}",
            next_step="the base must be the one that the adapter was trained on",
        ) from error


def load_plain(folder: Path, dtype: str) -> Any:
    """A model folder without quantization."""
    return _load(str(folder), dtype, None)


def end_ids(tokenizer: Any, training: Training) -> list[int]:
    """Tokens at which an answer ends; the tokenizer's own first."""
    own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return list(dict.fromkeys([*own, *training.end_of_turn_ids]))


def positions(config: Any) -> int | None:
    """Tokens that the model can tell apart by place, prompt and answer together; None where its config has no limit."""
    text = config.get_text_config()
    found = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    return None if found is None else int(found)


def prompt_ids(tokenizer: Any, messages: Sequence[dict[str, Any]]) -> list[int]:
    """Token ids of a chat up to where the assistant answers."""
    return list(
        tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=True, return_dict=False)
    )


@torch.inference_mode()  # type: ignore[untyped-decorator]
def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    ends: Sequence[int],
    pad: int,
    max_new_tokens: int,
    batch_size: int,
    on_batch: Callable[[int], None] = lambda done: None,
) -> list[list[int]]:
    """The greedy answer to each prompt: token ids, the end token included where the model wrote one.

    Nothing of the model's own generation_config.json applies (it may name penalties or a sampling temperature).
    Prompts of similar length share a batch; `on_batch` is told how many are done.
    """
    own = model.generation_config
    model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=list(ends), pad_token_id=pad
    )
    answers: dict[int, list[int]] = {}
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for group in batches(order, batch_size):
        width = max(len(prompts[index]) for index in group)
        ids, mask = _padded([prompts[index] for index in group], width, pad, model.device)
        written = model.generate(input_ids=ids, attention_mask=mask)[:, width:].tolist()
        answers |= {index: until(row, ends) for index, row in zip(group, written, strict=True)}
        on_batch(len(answers))
    model.generation_config = own
    return [answers[index] for index in range(len(prompts))]


def until(tokens: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Tokens up to the first end token, which is kept."""
    stop = next((position for position, token in enumerate(tokens) if token in ends), len(tokens))
    return list(tokens[: stop + 1])


def batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Consecutive groups of at most `size`."""
    return (items[start : start + size] for start in range(0, len(items), size))


def device() -> torch.device:
    """The accelerator (CUDA or ROCm), else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def _load(source: str, dtype: str, settings: BitsAndBytesConfig | None) -> Any:
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=getattr(torch, dtype), quantization_config=settings, device_map={"": device()}
    )
    return model.eval()


def _first_line(error: Exception) -> str:
    """PyTorch's own words come after a heading."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "size mismatch" in line), lines[0])


def _padded(rows: Sequence[Sequence[int]], width: int, pad: int, where: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask of shape (rows, width), padded on the left."""
    ids = [[pad] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids, device=where), torch.tensor(mask, device=where)
