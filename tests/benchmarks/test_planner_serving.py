"""The serving table is read as it was meant, and the shipped constants are the ones that the script prints."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from orchestrator.planner.estimate import Unknown
from orchestrator.planner.serving.efficiency import FILE, fitted

ROOT = Path(__file__).parents[2]
FACTS = ROOT.parent / "shared" / "facts" / "calibration" / "serving_perf.csv"


def script() -> ModuleType:
    """benchmarks/planner_serving.py as a module."""
    spec = importlib.util.spec_from_file_location("planner_serving", ROOT / "benchmarks" / "planner_serving.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


serving = script()
ROW = {
    "id": "x1",
    "source": "somewhere",
    "date": "2026-01",
    "engine": "vllm 0.10",
    "model": "Llama-3.1-8B",
    "gpu": "H100-SXM-80GB",
    "n_gpu": "1",
    "dtype": "bf16",
    "kv_dtype": "",
    "parallelism": "tp1",
    "input_len": "1000",
    "output_len": "500",
    "concurrency": "64",
    "request_rate": "",
    "tokens_per_s": "",
    "tokens_kind": "output",
    "ttft_ms": "",
    "tpot_ms": "",
}


def said(**cells: str):
    return serving.predict(ROW | cells)


def test_a_row_says_how_its_tokens_are_counted():
    output, every = said(), said(tokens_kind="total (input+output)")
    assert every.throughput == pytest.approx(3 * output.throughput)
    assert said(tokens_kind="prompt+generation").throughput == pytest.approx(3 * output.throughput)
    assert said(tokens_kind="output tokens/s/user").throughput == pytest.approx(1 / output.tpot_s)
    prompt = said(tokens_kind="prompt", concurrency="1", output_len="1")
    assert prompt.throughput == pytest.approx(1000 / prompt.ttft_s)


@pytest.mark.parametrize(
    ("cell", "same"),
    [("mxfp4/fp8 (table says FP8)", "mxfp4"), ("FP8 (e4m3)", "fp8"), ("int4-awq", "w4a16"), ("", "bf16")],
)
def test_a_type_is_read_from_the_words_around_it(cell, same):
    found = serving._format(cell)
    assert found == same


@pytest.mark.parametrize(
    ("cell", "same"),
    [("4-bit", "w4a16"), ("gguf Q4_K_M", "q4_k_m"), ("Q4_K - Medium", "q4_k_m"), ("GPTQ-4bit", "w4a16")],
)
def test_a_type_is_found_behind_other_words(cell, same):
    assert serving._format(cell) == same


@pytest.mark.parametrize(
    ("cell", "same"),
    [
        ("vLLM v0.8.2 (V1)", "vllm"),
        ("Triton + TRT-LLM", "tensorrt_llm"),
        ("TensorRT LLM 0.20", "tensorrt_llm"),
        ("dynamo (sglang)", "sglang"),
        ("llama.cpp b3000", "llama_cpp"),
        ("ollama 0.3", "llama_cpp"),
    ],
)
def test_an_engine_is_found_by_who_does_the_work(cell, same):
    assert serving._engine(cell) == same


def test_an_engine_without_constants_is_refused_by_name():
    assert "'tgi 2.0'" in said(engine="TGI 2.0").reason
    assert "'lmdeploy'" in said(engine="lmdeploy").reason


def test_numbers_are_read_as_tables_print_them():
    assert [serving._number(cell) for cell in ("1,024", "1k", "~200", "64 users", "1.5e3", "max", "")] == [
        1024, 1024, 200, 64, 1500, None, None,
    ]  # fmt: skip
    assert serving.measured(ROW | {"tokens_per_s": "1,500"}) == 1500
    assert serving.measured(ROW | {"tokens_per_s_per_gpu": "500", "n_gpu": "4"}) == 2000
    assert serving.measured(ROW | {"tokens_per_s": "-"}) is None


def test_lengths_that_are_missing_are_not_made_up():
    assert isinstance(said(output_len=""), Unknown)
    assert isinstance(said(input_len="", output_len=""), Unknown)
    assert isinstance(said(tokens_kind="req/s"), Unknown)
    assert serving.case(ROW | {"input_len": "", "output_len": "", "scenario": "ShareGPT"}).lengths.prompt == 202
    assert said(input_len="", output_len="128", concurrency="1").throughput > 0
    assert said(output_len="", tokens_kind="prompt", concurrency="1").throughput > 0


def test_prompts_of_many_at_once_are_counted_by_their_rate():
    one, many = (said(tokens_kind="prompt", output_len="1", concurrency=count) for count in ("1", "64"))
    assert one.throughput < many.throughput < 3 * one.throughput


def test_who_says_nothing_of_concurrency_has_one_stream_or_all():
    assert serving.case(ROW | {"engine": "llama.cpp", "dtype": "Q4_0", "concurrency": ""}).concurrency == 1
    assert serving.case(ROW | {"concurrency": "", "scenario": "batch size 8"}).concurrency == 8
    assert serving.case(ROW | {"concurrency": ""}).concurrency is None


def test_the_layout_is_read_from_the_parallelism():
    found = serving.case(ROW | {"parallelism": "dep2pp2", "n_gpu": "4", "model": "Qwen3-30B-A3B"})
    assert found.copies == 2
    assert found.target(fitted()).microbatches == 2
    assert found.target(fitted()).shape.data == 2


def test_gpus_without_a_layout_share_the_model_and_others_hold_copies():
    assert serving.case(ROW | {"parallelism": "", "n_gpu": "4"}).target(fitted()).shape.shards == 4
    assert serving.case(ROW | {"parallelism": "tp2", "n_gpu": "4"}).copies == 2


@pytest.mark.parametrize("written", ["TP=2, PP=2", "tensor parallel 2 pipeline_parallel_size=2", "tp-size 2 pp: 2"])
def test_the_layout_is_read_however_it_is_written(written):
    found = serving.case(ROW | {"parallelism": written, "n_gpu": "4"}).target(fitted())
    assert (found.shape.shards, found.microbatches, found.shape.data) == (2, 2, 1)


def test_a_rate_is_a_rate_and_max_is_as_many_as_fit():
    assert serving.case(ROW | {"request_rate": "4", "concurrency": ""}).rate == 4
    assert serving.case(ROW | {"request_rate": "inf", "concurrency": ""}).rate == float("inf")
    assert serving.case(ROW | {"concurrency": "max"}).concurrency is None


def test_a_row_that_the_catalog_cannot_answer_is_unknown():
    assert isinstance(said(model="no/such-model"), Unknown)
    assert isinstance(said(model="Llama-3.1-70B"), Unknown)  # does not fit


def test_the_fit_recovers_constants_that_made_the_rows():
    truth = fitted().model_copy(update={"cache": 0.7, "compute": fitted().compute | {"sm_90": 0.55}})
    loads = [("1000", "1000", "max"), ("128", "2048", "max"), ("4000", "100", "max"), ("1000", "500", "1")]
    table = [ROW | dict(zip(("input_len", "output_len", "concurrency"), one, strict=True)) for one in loads]
    table = [row | {"tokens_per_s": str(serving.predict(row, truth).throughput)} for row in table]
    constants = serving.fit(table)
    for row in table:
        assert serving.predict(row, constants).throughput == pytest.approx(float(row["tokens_per_s"]), rel=0.03)


def test_the_file_is_written_as_the_script_writes_it():
    assert serving.text(fitted()) == FILE.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(not FACTS.exists(), reason="the calibration tables are not shipped")
def test_the_shipped_constants_are_what_the_fit_prints():
    assert serving.text(serving.fit(serving.rows(FACTS))) == FILE.read_text(encoding="utf-8")
