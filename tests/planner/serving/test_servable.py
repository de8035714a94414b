import pytest

from orchestrator.catalog.catalog import load
from orchestrator.errors import InputError
from orchestrator.planner.serving.memory import memory
from orchestrator.planner.serving.servable import check_servable, refusal
from orchestrator.planner.serving.serving import Serving

CATALOG = load()


def said(engine: str, quantization: str, gpu: str) -> str | None:
    return refusal(Serving(engine=engine, quantization=quantization), CATALOG.gpu(gpu))


@pytest.mark.parametrize(
    ("engine", "quantization", "gpu"),
    [
        ("vllm", "bf16", "MI300X"),
        ("vllm", "fp8", "A100-80GB"),  # weights alone, by Marlin
        ("vllm", "int8", "H100"),
        ("vllm", "nvfp4", "H100"),  # weights alone
        ("vllm", "awq", "B200"),
        ("tensorrt_llm", "nvfp4", "B200"),
        ("tensorrt_llm", "fp8", "L40S"),
        ("llama_cpp", "Q4_K_M", "MI300X"),
        ("llama_cpp", "bf16", "RTX-4090"),
        ("transformers", "nf4", "H100"),
    ],
)
def test_what_an_engine_serves_is_not_refused(engine, quantization, gpu):
    assert said(engine, quantization, gpu) is None


@pytest.mark.parametrize(
    ("engine", "quantization", "gpu", "why"),
    [
        ("vllm", "int8", "B200", "use fp8"),
        ("vllm", "nvfp4", "MI300X", "emulated"),
        ("vllm", "Q4_K_M", "H100", "a format of llama_cpp"),
        ("vllm", "w4a8", "A100-80GB", "Hopper only"),
        ("tensorrt_llm", "bf16", "MI300X", "NVIDIA"),
        ("tensorrt_llm", "fp8", "A100-80GB", "fp8 matrix units"),
        ("tensorrt_llm", "nvfp4", "H100", "Blackwell only"),
        ("tensorrt_llm", "awq", "B200", "no Blackwell kernels"),
        ("tensorrt_llm", "int8", "H100", "does not read int8"),
        ("llama_cpp", "fp8", "H100", "does not read fp8"),
    ],
)
def test_a_refusal_says_why(engine, quantization, gpu, why):
    assert why in said(engine, quantization, gpu)


def test_the_error_names_what_would_do():
    with pytest.raises(InputError) as refused:
        check_servable(Serving(engine="tensorrt_llm", quantization="nvfp4"), CATALOG.gpu("H100"))
    assert "fp8" in refused.value.next_step
    assert "nvfp4" not in refused.value.next_step


def test_a_target_that_cannot_be_served_has_no_verdict():
    with pytest.raises(InputError, match="emulated"):
        memory(CATALOG.model("Llama-3.1-8B"), Serving(quantization="nvfp4"), CATALOG.gpu("MI300X"))
