"""Models whose layers cannot be shared by so many GPUs, as vLLM's users have met them."""

import pytest

from orchestrator.catalog.catalog import load
from orchestrator.planner.serving.formats import weight_format
from orchestrator.planner.serving.tensor_parallel import degrees, indivisible

CATALOG = load()


def _first(model: str, tensor: int, quantization: str = "bf16") -> str | None:
    found = indivisible(CATALOG.model(model), tensor, weight_format(quantization))
    return found[0] if found else None


@pytest.mark.parametrize(
    ("model", "tensor", "quantization", "what"),
    [
        ("Qwen/Qwen2.5-7B", 8, "bf16", "28 attention heads"),
        ("tiiuae/falcon-7b", 2, "bf16", "71 attention heads"),
        ("microsoft/phi-4", 4, "bf16", "10 key-value heads"),
        ("meta-llama/Llama-3.1-8B", 3, "bf16", "32 attention heads"),
        # "Weight input_size_per_partition = 14784 is not divisible by min_thread_k = 128"
        ("Qwen/Qwen2.5-72B", 2, "awq", "29568 inputs of down_proj, in groups of 128 (w4a16),"),
        (
            "Qwen/Qwen3-Next-80B-A3B-Instruct",
            8,
            "gptq",
            "512 inputs of shared_experts.down_proj, in groups of 128 (w4a16),",
        ),
        ("meta-llama/Llama-2-7b-hf", 4, "gptq", "11008 inputs of down_proj, in groups of 128 (w4a16),"),
    ],
)
def test_what_does_not_divide_is_named(model: str, tensor: int, quantization: str, what: str) -> None:
    assert _first(model, tensor, quantization) == what


@pytest.mark.parametrize(
    ("model", "tensor", "quantization"),
    [
        ("Qwen/Qwen2.5-72B", 8, "fp8"),
        ("meta-llama/Llama-3.1-70B", 8, "awq"),
        ("meta-llama/Llama-3.1-70B", 16, "bf16"),  # 8 key-value heads, each twice
        ("openai/gpt-oss-120b", 8, "mxfp4"),  # the kernels pad the experts' parts
        ("deepseek-ai/DeepSeek-R1", 8, "fp8"),
    ],
)
def test_what_is_served_that_way_is_not_refused(model: str, tensor: int, quantization: str) -> None:
    assert _first(model, tensor, quantization) is None


def test_a_vocabulary_is_padded_and_then_divided() -> None:
    odd = CATALOG.model("meta-llama/Llama-3.1-8B").model_copy(update={"vocab_size": 32001})
    assert indivisible(odd, 4, weight_format("bf16")) == []
    three = odd.model_copy(update={"attention": [], "intermediate_size": None, "vocab_size": 128000})
    assert indivisible(three, 3, weight_format("bf16")) == ["a vocabulary of 128000 (padded to 128000)"]


def test_an_ffn_is_divided_and_experts_are_not_where_they_are_spread_whole() -> None:
    mixture = CATALOG.model("Qwen/Qwen3-30B-A3B")
    experts = mixture.experts
    assert experts is not None
    narrow = mixture.model_copy(update={"experts": experts.model_copy(update={"intermediate_size": 750})})
    assert indivisible(narrow, 4, weight_format("bf16")) == ["experts of width 750"]
    assert indivisible(narrow, 4, weight_format("bf16"), expert_parallel=True) == []
    dense = CATALOG.model("meta-llama/Llama-3.1-8B").model_copy(update={"intermediate_size": 14338})
    assert indivisible(dense, 4, weight_format("bf16")) == ["an FFN of width 14338"]


def test_the_degrees_that_would_do() -> None:
    assert degrees(CATALOG.model("Qwen/Qwen2.5-7B"), weight_format("bf16")) == [1, 2, 4]
    assert degrees(CATALOG.model("Qwen/Qwen2.5-72B"), weight_format("awq")) == [1]
