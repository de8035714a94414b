import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.catalog.catalog import load
from orchestrator.planner.serving.serving import Serving
from orchestrator.planner.serving.shape import Shape, shape
from orchestrator.planner.serving.step import Efficiency, step, touched

CATALOG = load()
LLAMA, H100 = CATALOG.model("meta-llama/Llama-3.1-8B"), CATALOG.gpu("H100")
PERFECT = Efficiency(
    memory=1, cache=1, compute=1, grouped=1, attention=1, link=1, reduce_s=0, step_s=0, layer_s=0, extra_s=0,
    sequence_s=0, request_s=0, overlap=200,
)  # fmt: skip


def made(model=LLAMA, gpu=H100, **fields) -> Shape:
    found = shape(model, Serving(**fields), gpu)
    assert isinstance(found, Shape)
    return found


def test_one_sequence_reads_all_weights_but_the_embedding():
    read = (8_030_261_248 - 128256 * 4096) * 2
    assert step(made(), PERFECT, 1, 0).products == pytest.approx(read / 3.35e12)


def test_many_sequences_are_bound_by_flops():
    blocks = 8_030_261_248 - 2 * 128256 * 4096 - 65 * 4096
    flops = 2 * (blocks + 128256 * 4096) * 2000
    assert step(made(), PERFECT, 2000, 0).products == pytest.approx(flops / 989e12)


def test_the_cache_of_every_sequence_is_read():
    assert step(made(), PERFECT, 10, 1000).cache == pytest.approx(10 * 1000 * 131072 / 3.35e12)
    assert step(made(kv_dtype="fp8"), PERFECT, 10, 1000).cache == pytest.approx(10 * 1000 * 65536 / 3.35e12)


def test_attention_of_a_prompt_is_quadratic():
    flops = 4096 * 2048 * 4 * 32 * 128 * 32  # tokens x mean context x (QK and PV) x heads x width x layers
    assert step(made(), PERFECT, 0, 0, 4096, 2048).prompts == pytest.approx(flops / 989e12)


def test_fp8_weights_run_in_fp8_where_the_gpu_has_it_and_in_16_bits_elsewhere():
    flops = 2 * (8_030_261_248 - 2 * 128256 * 4096 - 65 * 4096)
    assert made(quantization="fp8").dense_seconds == pytest.approx(flops / 1979e12)
    assert made(gpu=CATALOG.gpu("A100-80GB"), quantization="fp8").dense_seconds > flops / 312e12


def test_a_mixture_reads_the_experts_that_its_tokens_choose():
    found = made(CATALOG.model("Qwen/Qwen3-30B-A3B"))
    assert touched(found, 1) == pytest.approx(8 / 128)
    assert touched(found, 2) == pytest.approx(1 - (120 / 128) ** 2)
    assert touched(found, 1e6) == pytest.approx(1)


def test_a_window_bounds_what_is_read_of_a_long_context():
    found = made(CATALOG.model("openai/gpt-oss-20b"), quantization="mxfp4")
    long, longer = (step(found, PERFECT, 1, tokens).cache for tokens in (10_000, 20_000))
    assert longer - long == pytest.approx(10_000 * 12 * 2 * 8 * 64 * 2 / 3.35e12)


def test_all_reduces_cost_latency_and_bandwidth():
    eff = PERFECT._replace(reduce_s=1e-5)
    expected = 2 * 32 * (1e-5 + 100 * 4096 * 2 * 2 * 0.5 / 450e9)
    alone = 100 * made(tensor=2).activation_bytes / 3.35e12
    assert step(made(tensor=2), eff, 100, 0).traffic - alone == pytest.approx(expected)


def test_gpus_without_fast_links_pay_more_for_sharing_a_layer():
    eff = PERFECT._replace(reduce_s=1e-5)
    slow, fast = (step(made(gpu=CATALOG.gpu(name), tensor=2), eff, 1, 0).traffic for name in ("L40S", "H100"))
    assert slow > 2 * fast


@pytest.mark.parametrize(("model", "gpu"), [("Qwen/Qwen3.5-9B", "H100"), ("Llama-3.1-8B", "ascend-910b")])
def test_what_is_not_known_is_unknown(model, gpu):
    assert shape(CATALOG.model(model), Serving(), CATALOG.gpu(gpu)).reason.startswith("unknown: ")


def test_a_type_that_the_gpu_does_not_have_is_unknown():
    assert "fp32" in shape(LLAMA, Serving(quantization="fp32"), CATALOG.gpu("MI355X")).reason


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["Llama-3.1-8B", "deepseek-ai/DeepSeek-R1", "Qwen/Qwen3.5-35B-A3B", "openai/gpt-oss-20b"]),
    st.floats(1, 2000),
    st.floats(0, 50_000),
    st.floats(0, 8192),
    st.sampled_from(["decoding", "context", "prompt"]),
    st.floats(1, 3),
)
def test_more_work_never_takes_less_time(name, decoding, context, prompt, grown, factor):
    found = made(CATALOG.model(name))
    eff = PERFECT._replace(overlap=3, step_s=1e-3, layer_s=1e-5, sequence_s=1e-6)
    load_ = {"decoding": decoding, "context": context, "prompt": prompt}
    more = load_ | {grown: load_[grown] * factor}
    assert step(found, eff, **load_).total <= step(found, eff, **more).total * (1 + 1e-9)


@settings(max_examples=50, deadline=None)
@given(st.floats(1, 500), st.floats(0, 20_000), st.floats(1, 4))
def test_faster_memory_is_never_slower(decoding, context, factor):
    faster = H100.model_copy(update={"bandwidth": H100.bandwidth * factor})
    before, after = (step(made(gpu=gpu), PERFECT, decoding, context).total for gpu in (H100, faster))
    assert after <= before
    assert math.isfinite(after)


def test_a_mixture_waits_for_more_kernels_than_a_dense_layer():
    found = made(CATALOG.model("Qwen/Qwen3-30B-A3B"))
    waiting = PERFECT._replace(layer_s=1.0)
    assert step(found, waiting, 1, 0).overhead == pytest.approx(48)
    assert step(found, waiting._replace(extra_s=1.0), 1, 0).overhead == pytest.approx(found.waits)
    assert found.waits > 48
