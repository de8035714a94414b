"""What an optimizer keeps for each number that it trains."""

from typing import NamedTuple

from orchestrator.errors import InputError
from orchestrator.plugins import nearest


class Optimizer(NamedTuple):
    """Memory of one optimizer."""

    states: float
    """Numbers kept for each trained one."""
    state_bytes: float | None = None
    """Bytes of one of them with its constants; None: as wide as the trained number."""
    step_copies: float = 0
    """Temporary numbers for each trained one while it steps."""
    paged: bool = False
    """Its states move to the host's memory when the GPU is full, so that a plan need not hold them."""


# 8-bit states have an fp32 absmax for 256 of them (bitsandbytes' block-wise quantization, arXiv:2110.02861).
_EIGHT_BITS = 1 + 4 / 256
_FOUR_BITS = 0.5 + 4 / 128
OPTIMIZERS = {
    "adamw_torch": Optimizer(2, step_copies=1),  # the foreach implementation holds sqrt(v) of all parameters
    "adamw_torch_fused": Optimizer(2),
    "adamw_apex_fused": Optimizer(2),
    "adamw_anyprecision": Optimizer(2),
    "adamw_bnb_8bit": Optimizer(2, _EIGHT_BITS),
    "adamw_torch_8bit": Optimizer(2, _EIGHT_BITS),
    "adamw_torch_4bit": Optimizer(2, _FOUR_BITS),
    "paged_adamw_32bit": Optimizer(2, 4, paged=True),
    "paged_adamw_8bit": Optimizer(2, _EIGHT_BITS, paged=True),
    "lion_32bit": Optimizer(1, 4),
    "lion_8bit": Optimizer(1, _EIGHT_BITS),
    "paged_lion_32bit": Optimizer(1, 4, paged=True),
    "paged_lion_8bit": Optimizer(1, _EIGHT_BITS, paged=True),
    "muon": Optimizer(1),
    "adagrad": Optimizer(1),
    "rmsprop": Optimizer(1),
    "adafactor": Optimizer(0, step_copies=1),  # a number for each row and column, and the update of one matrix
    "sgd": Optimizer(0),
    "sgd_momentum": Optimizer(1),
    "schedule_free_adamw": Optimizer(2),
    "lora_fa": Optimizer(2),
}
_ALIASES = {
    "adamw": "adamw_torch",
    "adam": "adamw_torch",
    "adamw_hf": "adamw_torch",
    "adamw_8bit": "adamw_bnb_8bit",
    "adam_8bit": "adamw_bnb_8bit",
    "adamw8bit": "adamw_bnb_8bit",
    "paged_adamw": "paged_adamw_32bit",
    "pagedadamw8bit": "paged_adamw_8bit",
    "pagedadamw": "paged_adamw_32bit",
    "lion": "lion_32bit",
    "paged_lion": "paged_lion_32bit",
}


def optimizer(name: str) -> Optimizer:
    """The optimizer that the Hugging Face Trainer (or everyday speech) calls so. InputError with the nearest name."""
    plain = name.strip().lower().replace("-", "_")
    found = OPTIMIZERS.get(_ALIASES.get(plain, plain))
    if found is None:
        raise InputError(f"unknown optimizer {name!r}; {nearest(plain, sorted({*OPTIMIZERS, *_ALIASES}))}")
    return found
