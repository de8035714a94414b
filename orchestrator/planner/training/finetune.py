"""What planning needs to know of a fine-tune, and whether a model can be split that way at all."""

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from orchestrator.catalog.models import ModelFacts
from orchestrator.catalog.parameters import EXPERTS, Matrix, linear_layers, part
from orchestrator.config import Model
from orchestrator.errors import InputError
from orchestrator.planner.training.optimizers import optimizer
from orchestrator.planner.training.quantization import DTYPE_BYTES, check_dtype
from orchestrator.plugins import nearest

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
FFN = ("gate_proj", "up_proj", "down_proj")
ALL_LINEAR = "all-linear"
WORDS: dict[str, str | tuple[str, ...]] = {ALL_LINEAR: ALL_LINEAR, "attention": ATTENTION, "mlp": FFN}
"""Names for sets of target modules."""
ENDS_AS_LAYERS = 2
"""Megatron may count the embedding and the head as layers where it divides a pipeline."""
SHARDS_WEIGHTS = ("fsdp1", "fsdp2", "zero3")
SHARDS_GRADIENTS = (*SHARDS_WEIGHTS, "zero2")
SHARDS_OPTIMIZER = (*SHARDS_GRADIENTS, "zero1")


class Sharding(Model):
    """How a fine-tune is spread over GPUs; their number is the product of the degrees, without `expert`."""

    strategy: Literal["none", "ddp", "fsdp1", "fsdp2", "zero1", "zero2", "zero3"] = "none"
    """What the data-parallel GPUs split: nothing, nothing (ddp), optimizer (zero1), gradients too (zero2), all."""
    data: int = Field(1, ge=1)
    """GPUs that each take other rows."""
    tensor: int = Field(1, ge=1)
    """GPUs that share every matrix; heads must divide by it."""
    pipeline: int = Field(1, ge=1)
    """Groups of GPUs that each hold some layers."""
    context: int = Field(1, ge=1)
    """GPUs that share a sequence."""
    expert: int = Field(1, ge=1)
    """Of the data-parallel GPUs, how many share one set of experts."""
    pipeline_chunks: int = Field(1, ge=1)
    """Interleaved model chunks of a pipeline stage (virtual stages)."""

    @property
    def gpus(self) -> int:
        """How many GPUs that takes."""
        return self.data * self.tensor * self.pipeline * self.context

    @property
    def replicas(self) -> int:
        """GPUs that FSDP and ZeRO split states over: those of a sequence share them too."""
        return self.data * self.context


class FineTune(Model):
    """A fine-tune as planning sees it; the names are the recipe's where it has them."""

    method: Literal["full", "lora", "qlora", "dora"] = "qlora"
    """`lora`: adapters; `qlora`: adapters on a quantized base; `dora`: adapters with a magnitude per output."""
    weights_dtype: str | None = None
    """Of the base: fp32, bf16, fp16, fp8, int8, int4, nf4, nf4-dq; None: nf4-dq for qlora, bf16 for the others."""
    compute_dtype: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Of products and activations."""
    compute: Literal["16-bit", "fp8", "fp4"] = "16-bit"
    """Type of the matrix products where they are quantized for speed (float8 training); memory stays the same."""
    master_weights: bool = False
    """A separate fp32 copy of what is trained, as DeepSpeed and Megatron keep beside 16-bit weights."""
    adapter_dtype: Literal["fp32", "bf16", "fp16"] | None = None
    """None: fp32 as PEFT makes it, but the compute type for qlora, as TRL casts it."""
    autocast: bool = True
    """Products run under torch.autocast, as the Hugging Face Trainer does with bf16 or fp16 set."""
    lora_r: int = Field(16, ge=1)
    """Rank."""
    lora_dropout: float = Field(0, ge=0, lt=1)
    """Share of an adapter's inputs that is dropped."""
    target_modules: str | list[str] = "all-linear"
    """Modules with an adapter: `all-linear` (no routed experts), `attention`, `mlp`, ends of names, or a pattern."""
    train_embeddings: bool = False
    """Embedding and head are trained too (modules_to_save)."""
    trainable_parameters: int | None = Field(None, ge=0)
    """Overrides the count, for adapters of other kinds."""
    micro_batch_size: int = Field(1, ge=1)
    """Rows of one forward pass on one GPU (of one data-parallel group)."""
    sequence_len: int = Field(1024, ge=1)
    """Tokens after which a row is cut off, or of a packed row."""
    longest_row: int | None = Field(None, ge=1)
    """Tokens of the longest row, where it is known to be shorter than sequence_len and rows are not packed."""
    mean_row: int | None = Field(None, ge=1)
    """Tokens of a usual row that is not packed, which speed depends on; None: the longest."""
    gradient_accumulation_steps: int = Field(1, ge=1)
    """Forward passes of an optimizer step."""
    packing: bool = False
    """Rows are put together to sequence_len."""
    checkpointing: Literal["none", "selective", "full", "offloaded"] = "full"
    """Activations kept: all; half of the products; one per layer; one per layer in the host's memory."""
    attention: Literal["flash", "sdpa", "eager"] = "sdpa"
    """eager keeps a number for every pair of tokens; sdpa with a padding mask repeats grouped keys and values."""
    kernels: Literal["eager", "fused"] = "eager"
    """fused: torch.compile, Liger or Unsloth, which keep fewer results of norms and activation functions."""
    packed_inputs: Literal["dropped", "kept"] = "dropped"
    """bitsandbytes of 2023 kept the input of every packed matrix for the backward pass; it does so no more."""
    loss: Literal["full", "chunked", "fused"] = "fused"
    """full: logits of all tokens with fp32 copies; chunked: of 1024 tokens at a time; fused: a tile, as TRL >= 1.10."""
    optimizer: str = "adamw_torch_fused"
    """As the Hugging Face Trainer names it; the default is its own."""
    gradient_release: bool = False
    """The optimizer steps inside the backward pass, so that no gradient outlives its layer."""
    offload: Literal["none", "optimizer", "all"] = "none"
    """What lies in the host's memory: optimizer states, or weights and gradients as well."""
    checkpoint: Literal["sharded", "full"] = "sharded"
    """How states are saved: each GPU its part, or one file that every GPU reads whole when it resumes."""
    sharding: Sharding = Sharding()
    """Over GPUs."""

    @property
    def base_dtype(self) -> str:
        """Type of the base's weights."""
        return self.weights_dtype or ("nf4-dq" if self.method == "qlora" else "bf16")

    @property
    def trained_dtype(self) -> str:
        """Type of the weights that are trained, of their gradients and of most optimizers' states."""
        if self.method == "full":
            return self.base_dtype
        return self.adapter_dtype or (self.compute_dtype if self.method == "qlora" else "fp32")

    @property
    def row_tokens(self) -> int:
        """Tokens of the longest row that a GPU sees, before the sequence is split."""
        return self.sequence_len if self.packing else min(self.sequence_len, self.longest_row or self.sequence_len)

    @property
    def tokens(self) -> float:
        """Tokens of the largest micro-batch on one GPU."""
        return self.micro_batch_size * self.row_tokens / self.sharding.context


def targets(model: ModelFacts, tune: FineTune) -> list[Matrix]:
    """The matrices that get an adapter. Raises InputError when the recipe's words match none."""
    if tune.method == "full":
        return []
    matrices = [matrix for matrix in linear_layers(model) if part(matrix.name) != "router"]
    wanted: str | Sequence[str] = tune.target_modules
    if isinstance(wanted, str):
        wanted = WORDS.get(wanted, wanted)
    if wanted == ALL_LINEAR:
        return [matrix for matrix in matrices if not matrix.name.startswith(EXPERTS)]
    found = [matrix for matrix in matrices if _matches(matrix.name, wanted)]
    if wanted and matrices and not found:
        names = sorted({_last(matrix.name) for matrix in matrices})
        asked = wanted if isinstance(wanted, str) else ", ".join(wanted)
        raise InputError(f"{model.id} has no module that matches {asked}; {nearest(asked, [*names, *WORDS])}")
    return found


def _matches(name: str, wanted: str | Sequence[str]) -> bool:
    """As PEFT: a text is a regular expression of the whole path, a list has ends of paths."""
    where = "mlp" if part(name) in ("ffn", "experts", "shared_experts") else "self_attn"
    path = f"model.layers.0.{where}.{name}"
    if isinstance(wanted, str):
        try:
            return re.fullmatch(wanted, path) is not None
        except re.error as error:
            raise InputError(f"{wanted!r} is not a regular expression: {error}") from error
    return any(path.endswith(f".{end}") for end in wanted) and not name.startswith(EXPERTS)


def check(model: ModelFacts, tune: FineTune) -> None:
    """Raises InputError for a fine-tune that cannot exist: what was found, and what would be valid."""
    check_dtype(tune.base_dtype)
    optimizer(tune.optimizer)
    if tune.method == "full" and tune.base_dtype not in DTYPE_BYTES:
        raise InputError(
            f"weights in {tune.base_dtype} cannot be trained in full",
            next_step=f"set method to qlora, or weights_dtype to one of {', '.join(DTYPE_BYTES)}",
        )
    if tune.method == "qlora" and tune.base_dtype in DTYPE_BYTES:
        raise InputError(
            f"qlora needs a quantized base, not {tune.base_dtype}", next_step="use method lora, or weights_dtype nf4-dq"
        )
    _check_sharding(model, tune.sharding)


def _check_sharding(model: ModelFacts, sharding: Sharding) -> None:
    for attention in model.attention:
        for heads, what in ((attention.heads, "heads"), (attention.kv_heads, "key-value heads")):
            _check_heads(model, what, heads, sharding.tensor)
    stages = sharding.pipeline * sharding.pipeline_chunks
    if model.layers and (sharding.pipeline > model.layers or stages > model.layers + ENDS_AS_LAYERS):
        raise InputError(
            f"{model.id} has {model.layers} layers, fewer than {stages} stages",
            next_step=f"set pipeline x pipeline_chunks to at most {model.layers}",
        )
    if sharding.data > 1 and sharding.strategy == "none":
        raise InputError(
            f"data is {sharding.data}, but the strategy is none",
            next_step="set strategy to ddp, fsdp2, zero1, zero2 or zero3, or data to 1",
        )
    if sharding.expert > 1:
        _check_experts(model, sharding)


def _check_heads(model: ModelFacts, what: str, heads: int, tensor: int) -> None:
    replicated = what == "key-value heads" and tensor % heads == 0
    if heads % tensor and not replicated:
        valid = [degree for degree in range(1, heads + 1) if heads % degree == 0]
        raise InputError(
            f"{heads} {what} of {model.id} cannot be divided over {tensor} GPUs",
            next_step=f"set tensor to one of {', '.join(map(str, valid))}",
        )


def _check_experts(model: ModelFacts, sharding: Sharding) -> None:
    if model.experts is None:
        raise InputError(f"{model.id} has no experts to divide", next_step="set expert to 1")
    experts, group = model.experts.routed, sharding.replicas * sharding.tensor
    if experts % sharding.expert or group % sharding.expert:
        valid = [degree for degree in range(1, group + 1) if experts % degree == 0 and group % degree == 0]
        raise InputError(
            f"{experts} experts on {group} data-parallel GPUs cannot be divided over {sharding.expert}",
            next_step=f"set expert to one of {', '.join(map(str, valid))}",
        )


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]
