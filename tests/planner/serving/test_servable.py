import pytest

from orchestrator.catalog.catalog import load
from orchestrator.errors import InputError
from orchestrator.planner.serving.memory import memory
from orchestrator.planner.serving.servable import check_servable, refusal, way, way_on_cpu
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


KINDS = ("H100", "A100-80GB", "RTX-4090", "B200", "MI300X")
"""Columns of the table below: native, weight-only, emulated, or not at all (X)."""
TABLE = """
vllm          bf16            N  N  N  N  N
vllm          fp8             N  W  N  N  N
vllm          fp8_per_tensor  N  W  N  N  N
vllm          fp8_block       N  W  W  N  N
vllm          int8            N  N  N  X  N
vllm          gptq            N  N  N  N  N
vllm          awq             N  N  N  N  N
vllm          w4afp8          N  X  X  X  X
vllm          nvfp4           W  W  W  N  E
vllm          mxfp4           W  W  W  N  E
vllm          bitsandbytes    W  W  W  W  W
vllm          Q4_K_M          X  X  X  X  X
tensorrt_llm  bf16            N  N  N  N  X
tensorrt_llm  fp8             N  X  N  N  X
tensorrt_llm  fp8_block       N  X  X  N  X
tensorrt_llm  awq             N  N  N  X  X
tensorrt_llm  gptq            N  N  N  X  X
tensorrt_llm  w4a8_awq        N  X  N  X  X
tensorrt_llm  nvfp4           X  X  X  N  X
tensorrt_llm  mxfp4           W  X  X  N  X
llama_cpp     Q4_K_M          N  N  N  N  N
llama_cpp     Q5_K_M          N  N  N  N  N
llama_cpp     Q8_0            N  N  N  N  N
llama_cpp     IQ4_XS          N  N  N  N  N
llama_cpp     mxfp4           W  W  W  W  W
llama_cpp     nvfp4           W  W  W  W  W
"""
"""From vLLM 0.32's kernel lists, TensorRT-LLM 1.2's support matrix and llama.cpp's CMake files. Not as one may read it:
GGUF in vLLM is a plug-in's business; TensorRT-LLM's matrix has MXFP4 on Blackwell only, and its own measurements have
gpt-oss on Hopper; llama.cpp's kernels for B200 are compiled when they first run."""
WAYS = {"N": "native", "W": "weight-only", "E": "emulated", "X": "no"}


@pytest.mark.parametrize("line", TABLE.strip().splitlines(), ids=lambda line: "-".join(line.split()[:2]))
def test_each_engine_serves_each_format_as_its_sources_say(line):
    engine, quantization, *marks = line.split()
    served = Serving(engine=engine, quantization=quantization)
    found = {kind: way(served, CATALOG.gpu(kind)).kind for kind in KINDS}
    assert found == {kind: WAYS[mark] for kind, mark in zip(KINDS, marks, strict=True)}


def test_a_cpu_computes_most_formats_as_they_are():
    unpacked = [Serving(engine="llama_cpp", quantization="mxfp4"), Serving(quantization="bitsandbytes")]
    assert {way_on_cpu(one).kind for one in unpacked} == {"weight-only"}
    plain = [
        Serving(engine="llama_cpp", quantization="Q4_K_M"),
        Serving(quantization="fp8"),
        Serving(quantization="int8"),
    ]
    assert {way_on_cpu(one).kind for one in plain} == {"native"}


def test_what_is_emulated_is_not_planned_and_says_what_to_use():
    assert refusal(Serving(quantization="mxfp4"), CATALOG.gpu("MI300X")).endswith("only emulated there; use fp8")
    assert refusal(Serving(quantization="mxfp4"), CATALOG.gpu("MI355X")) is None
