"""`Serving`: what a serving target is, as far as planning its memory and its speed needs it."""

from typing import Self

from pydantic import Field, model_validator

from orchestrator.catalog.gpus import Gpu
from orchestrator.catalog.models import ModelFacts
from orchestrator.config import Model
from orchestrator.errors import InputError
from orchestrator.planner.serving.formats import Format, weight_format
from orchestrator.planner.serving.tensor_parallel import degrees, indivisible
from orchestrator.planner.serving.traits import EngineTraits, traits

KV_BYTES = {
    "fp32": 4.0,
    "f32": 4.0,
    "bf16": 2.0,
    "bfloat16": 2.0,
    "fp16": 2.0,
    "float16": 2.0,
    "f16": 2.0,
    "fp8": 1.0,
    "fp8_e4m3": 1.0,
    "fp8_e5m2": 1.0,
    "int8": 1.0,
    "q8_0": 1.0625,
    "q5_1": 0.75,
    "q5_0": 0.6875,
    "q4_1": 0.625,
    "q4_0": 0.5625,
    "iq4_nl": 0.5625,
    "nvfp4": 0.5625,
}
"""Bytes of one cached number by its type, scales included."""


class Serving(Model):
    """One target: the engine with its options, and how many GPUs share the model."""

    engine: str = "vllm"
    """vllm, sglang, tensorrt_llm, llama_cpp or transformers."""
    quantization: str = "bf16"
    """Weight format, as in a recipe: bf16, fp8, int8, w4a16, nvfp4, mxfp4, Q4_K_M."""
    kv_dtype: str = "auto"
    """Of keys and values; auto: 16 bits, in TensorRT-LLM fp8 where the weights are fp8 or fp4."""
    keep_16bit: tuple[str, ...] = ()
    """Parts that this checkpoint left in 16 bits although its format quantizes them: attention, shared_experts."""
    tensor: int = Field(1, ge=1)
    """GPUs that share each layer."""
    pipeline: int = Field(1, ge=1)
    """Groups of layers on GPUs of their own."""
    data: int = Field(1, ge=1)
    """Copies of the attention layers, each with its own requests; of the whole model without expert_parallel."""
    expert_parallel: bool = False
    """Experts are spread over all tensor x data GPUs instead of being cut or copied."""
    max_model_len: int | None = Field(None, gt=0)
    """Longest sequence, prompt and answer; None: the model's own."""
    max_num_seqs: int | None = Field(None, gt=0)
    """Most sequences in one step, of one copy; in llama.cpp its slots; None: the engine's default."""
    max_num_batched_tokens: int | None = Field(None, gt=0)
    """Most tokens in one step; None: the engine's default."""
    gpu_memory_utilization: float | None = Field(None, gt=0, le=1)
    """Share of the memory that the engine may take, of the total or of what is free once loaded; None: its default."""
    lora_slots: int = Field(0, ge=0)
    """Adapters that are held on the GPU at once."""
    lora_rank: int = Field(16, gt=0)
    """Largest rank of an adapter."""
    draft: ModelFacts | None = None
    """A speculative draft model, in 16 bits, beside the model."""
    draft_tokens: int = Field(3, ge=1)
    """Tokens that the draft proposes each time."""
    draft_acceptance: float = Field(0.6, ge=0, lt=1)
    """Share of proposed tokens that are accepted; it depends on text and draft, so measure it."""
    cuda_graphs: bool = True
    """Decode steps are captured as graphs; eager mode saves their memory and launches each kernel anew."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        weight_format(self.quantization)
        traits(self.engine)
        if self.kv_dtype != "auto" and self.kv_dtype.lower() not in KV_BYTES:
            raise InputError(f"unknown kv_dtype {self.kv_dtype!r}; write one of auto, {', '.join(KV_BYTES)}")
        return self

    @property
    def gpus(self) -> int:
        """GPUs of the whole target."""
        return self.tensor * self.pipeline * self.data

    @property
    def shards(self) -> int:
        """GPUs that each matrix is cut over; llama.cpp gives its GPUs whole layers instead."""
        return 1 if self.traits.splits_layers else self.tensor

    @property
    def stages(self) -> int:
        """GPUs that hold different layers."""
        return self.pipeline * (self.tensor if self.traits.splits_layers else 1)

    @property
    def format(self) -> Format:
        """Of the weights, with the parts that this checkpoint keeps."""
        found = weight_format(self.quantization)
        return found.model_copy(update={"keeps": (*found.keeps, *self.keep_16bit)}) if self.keep_16bit else found

    @property
    def traits(self) -> EngineTraits:
        """How the engine handles memory and batches."""
        return traits(self.engine)

    @property
    def kv_bytes(self) -> float:
        """Bytes of one cached number."""
        return KV_BYTES[self.kv_type]

    @property
    def kv_type(self) -> str:
        """Type of keys and values, with auto resolved."""
        if self.kv_dtype != "auto":
            return self.kv_dtype.lower()
        narrow = self.traits.narrow_kv and self.format.bits <= 8.5 and self.format.compute[0] != "bf16"
        return "fp8" if narrow else "bf16"


def check(model: ModelFacts, serving: Serving) -> None:
    """Raise InputError for a layout that no engine can run: matrices that do not divide, more stages than layers."""
    tensor, pipeline = serving.shards, serving.stages
    ways = {"expert_parallel": serving.expert_parallel}
    if tensor > 1 and (parts := indivisible(model, tensor, serving.format, **ways)):
        allowed = degrees(model, serving.format, **ways)
        raise InputError(
            f"{parts[0]} of {model.id} cannot be divided over {tensor} GPUs",
            next_step=f"set tensor_parallel_size to one of {', '.join(map(str, allowed))}",
        )
    if model.layers and pipeline > model.layers:
        raise InputError(f"pipeline parallel {pipeline} is more than the {model.layers} layers of {model.id}")
    if serving.expert_parallel and model.experts and model.experts.routed < serving.tensor * serving.data:
        raise InputError(
            f"{model.experts.routed} experts of {model.id} cannot be spread over {serving.tensor * serving.data} GPUs",
            next_step="use fewer GPUs, or expert_parallel: false",
        )


def context_length(model: ModelFacts, serving: Serving) -> int | None:
    """The longest sequence of this target; None: neither the target nor the catalog says."""
    return serving.max_model_len or model.max_context


def sequences(serving: Serving, gpu: Gpu) -> int:
    """Most sequences in one step of one copy."""
    return serving.max_num_seqs or serving.traits.batch(gpu.memory_visible)[0]


def batched_tokens(serving: Serving, gpu: Gpu) -> int:
    """Most tokens in one step of one copy."""
    return serving.max_num_batched_tokens or serving.traits.batch(gpu.memory_visible)[1]
