import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.catalog.catalog import load
from orchestrator.planner.estimate import Unknown
from orchestrator.planner.serving.efficiency import ASSUMED, efficiency, fitted
from orchestrator.planner.serving.load import Lengths, Target, arriving, burst, closed, most_running, steps
from orchestrator.planner.serving.serving import Serving
from orchestrator.planner.serving.speed import best_concurrency, places, speed, speed_at_rate, target

CATALOG = load()
LLAMA, H100 = CATALOG.model("meta-llama/Llama-3.1-8B"), CATALOG.gpu("H100")
MODELS = ["meta-llama/Llama-3.1-8B", "openai/gpt-oss-20b", "Qwen/Qwen3.5-27B", "Qwen/Qwen3-30B-A3B"]
ENGINES = ["vllm", "sglang", "tensorrt_llm"]


def made(model=LLAMA, gpu=H100, lengths=(1000, 500), **fields) -> Target:
    found = target(model, Serving(**fields), gpu, Lengths(*lengths), fitted())
    assert isinstance(found, Target)
    return found


def test_a_single_stream_takes_one_plain_step_per_token():
    found, lengths = made(), Lengths(1000, 500)
    point = closed(found, lengths, 1)
    assert point.tpot_s == pytest.approx(steps(found, 1, lengths.mean))
    service = point.ttft_s + 499 * point.tpot_s
    assert point.requests_per_s == pytest.approx(1 / service)


def test_beyond_the_places_requests_wait_and_throughput_stays():
    full, over = (speed(LLAMA, Serving(), H100, load_, 1000, 500) for load_ in (None, 5000))
    assert over.throughput.value == pytest.approx(full.throughput.value)
    assert over.ttft.value > 10 * full.ttft.value
    assert over.running == full.running <= full.places


def test_a_steady_state_reads_as_many_prompts_as_it_finishes():
    found, lengths = made(lengths=(8000, 100), quantization="fp8"), Lengths(8000, 100)
    point = closed(found, lengths, 1000)
    read = point.requests_per_s * lengths.prompt
    assert read <= found.most_tokens / steps(found, 0, 1, found.most_tokens, 4000)
    assert point.running == pytest.approx(most_running(found, lengths))


def test_a_burst_of_many_requests_nears_the_steady_state():
    found, lengths = made(), Lengths(500, 500)
    steady = closed(found, lengths, most_running(found, lengths)).requests_per_s
    short, long = (burst(found, lengths, count).requests_per_s for count in (1000, 100_000))
    assert short < long < steady
    assert long == pytest.approx(steady, rel=0.02)


def test_slow_arrivals_are_served_as_they_come():
    found = speed_at_rate(LLAMA, Serving(), H100, 2, 467, 256)
    assert found.requests_per_s == 2
    assert found.running == pytest.approx(2 * (found.ttft.value + 255 * found.tpot.value), rel=0.05)


def test_arrivals_beyond_what_it_can_do_queue_without_end():
    found = speed_at_rate(LLAMA, Serving(), H100, 1000, 467, 256)
    assert math.isinf(found.ttft.value)
    assert found.requests_per_s < 1000


def test_two_copies_do_twice_as_much():
    one, two = (speed(LLAMA, Serving(data=copies), H100, 32 * copies, 1000, 500) for copies in (1, 2))
    assert two.throughput.value == pytest.approx(2 * one.throughput.value)
    assert two.tpot.value == pytest.approx(one.tpot.value)


def test_pipeline_stages_help_throughput_and_not_the_single_stream():
    big, h200 = CATALOG.model("meta-llama/Llama-3.1-70B"), CATALOG.gpu("H200")
    one, two = (Serving(pipeline=stages, quantization="fp8") for stages in (1, 2))
    full = [speed(big, served, h200, None, 1000, 500).throughput.value for served in (one, two)]
    alone = [speed(big, served, h200, 1, 1000, 500).tpot.value for served in (one, two)]
    assert full[1] > 1.3 * full[0]
    assert alone[1] == pytest.approx(alone[0], rel=0.1)


def test_a_draft_that_is_often_right_speeds_up_a_single_stream():
    big, draft = CATALOG.model("meta-llama/Llama-3.1-70B"), CATALOG.model("meta-llama/Llama-3.2-1B")
    plain = speed(big, Serving(tensor=4), H100, 1, 500, 500)
    drafted = speed(big, Serving(tensor=4, draft=draft, draft_acceptance=0.8), H100, 1, 500, 500)
    assert drafted.tpot.value < 0.7 * plain.tpot.value


def test_eager_mode_is_slower():
    eager, captured = (speed(LLAMA, Serving(cuda_graphs=graphs), H100, 1, 500, 500) for graphs in (False, True))
    assert eager.tpot.value > 1.2 * captured.tpot.value


def test_the_parts_of_a_step_add_up_to_the_time_per_token():
    found = speed(LLAMA, Serving(), H100, 64, 1000, 500)
    assert sum(term.amount for term in found.tpot.terms) == pytest.approx(found.tpot.value)
    assert found.bound in {term.name for term in found.tpot.terms}


def test_an_engine_that_was_not_measured_has_a_wider_interval_and_says_so():
    known, assumed = (speed(LLAMA, Serving(engine=name), H100, 8, 500, 500).throughput for name in ENGINES[::-2])
    assert known.high / known.low < assumed.high / assumed.low
    assert "not calibrated" in assumed.source
    assert "measurements" in known.source


def test_gpus_that_were_not_measured_have_a_wider_interval():
    measured, other = (speed(LLAMA, Serving(), CATALOG.gpu(name), 8, 500, 500).tpot for name in ("H100", "MI300X"))
    assert measured.high / measured.low < other.high / other.low


def test_llama_cpp_runs_no_more_than_its_slots():
    served = Serving(engine="llama_cpp", quantization="Q4_K_M", max_num_seqs=8)
    found = speed(LLAMA, served, CATALOG.gpu("RTX-4090"), 32, 500, 500)
    assert found.running == found.places == 8


def test_what_does_not_fit_has_no_speed():
    found = speed(CATALOG.model("meta-llama/Llama-3.1-70B"), Serving(), H100, 1, 500, 500)
    assert isinstance(found, Unknown)
    assert "does not fit" in found.reason


def test_the_best_concurrency_is_the_last_that_keeps_the_limit():
    limit = 0.02
    best = best_concurrency(LLAMA, Serving(), H100, 1000, 500, tpot_s=limit)
    assert speed(LLAMA, Serving(), H100, best, 1000, 500).tpot.value <= limit
    assert speed(LLAMA, Serving(), H100, best + 1, 1000, 500).tpot.value > limit
    assert best_concurrency(LLAMA, Serving(), H100, 1000, 500, tpot_s=1e-4) == 0


def test_every_engine_that_can_be_planned_has_habits():
    for name in ASSUMED:
        found = efficiency(name, "sm_90", fitted())
        assert 0 < found.memory < 1
        assert 0 < found.compute < 1


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(MODELS),
    st.sampled_from(ENGINES),
    st.integers(1, 4000),
    st.integers(1, 2000),
    st.integers(1, 2000),
    st.integers(1, 2000),
)
def test_more_concurrency_is_never_less_throughput(name, engine, prompt, answer, one, other):
    found, lengths = made(CATALOG.model(name), lengths=(prompt, answer), engine=engine), Lengths(prompt, answer)
    few, many = (closed(found, lengths, min(load_, places(found))) for load_ in sorted((one, other)))
    assert few.requests_per_s <= many.requests_per_s * (1 + 1e-6)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(MODELS), st.integers(1, 8000), st.integers(1, 8000), st.integers(1, 1000), st.integers(1, 64))
def test_a_longer_prompt_never_starts_to_answer_earlier(name, one, other, answer, load_):
    short, long = (
        speed(CATALOG.model(name), Serving(), H100, load_, prompt, answer).ttft.value for prompt in sorted((one, other))
    )
    assert short <= long * (1 + 1e-6)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(MODELS), st.integers(1, 500), st.floats(1, 3))
def test_faster_memory_never_serves_less(name, load_, factor):
    faster = H100.model_copy(update={"bandwidth": H100.bandwidth * factor})
    before, after = (speed(CATALOG.model(name), Serving(), gpu, load_, 500, 500) for gpu in (H100, faster))
    assert before.throughput.value <= after.throughput.value * (1 + 1e-6)
    assert after.tpot.value <= before.tpot.value * (1 + 1e-6)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.1, 30), st.floats(0.1, 30))
def test_more_arrivals_never_shorten_the_wait(one, other):
    found, lengths = made(lengths=(467, 256)), Lengths(467, 256)
    few, many = (arriving(found, lengths, rate) for rate in sorted((one, other)))
    assert few.ttft_s <= many.ttft_s * (1 + 1e-6)
    assert few.tpot_s <= many.tpot_s * (1 + 1e-6)


@pytest.mark.parametrize(
    ("gpu", "model", "form", "published"),
    [  # tokens/s of 1,024 in a row, XiongjieDai/GPU-Benchmarks-on-LLM-Inference, 2024-05
        ("RTX-4090", "meta-llama/Meta-Llama-3-8B", "Q4_K_M", 127.7),
        ("RTX-3090", "meta-llama/Meta-Llama-3-8B", "Q4_K_M", 111.7),
        ("A100-PCIe-80GB", "meta-llama/Meta-Llama-3-70B", "Q4_K_M", 22.1),
        ("H100-PCIe", "meta-llama/Meta-Llama-3-70B", "Q4_K_M", 25.0),
        ("H100-PCIe", "meta-llama/Meta-Llama-3-8B", "F16", 67.8),
        ("RTX-A6000", "meta-llama/Meta-Llama-3-70B", "Q4_K_M", 14.6),
    ],
)
def test_llama_cpp_writes_about_as_fast_as_was_published(gpu, model, form, published):
    serving = Serving(engine="llama_cpp", quantization=form, max_num_seqs=1)
    found = closed(
        target(CATALOG.model(model), serving, CATALOG.gpu(gpu), Lengths(1, 1024), fitted()), Lengths(1, 1024), 1
    )
    assert 1 / found.tpot_s == pytest.approx(published, rel=0.2)
