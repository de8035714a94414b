"""The page of a whole run, of a failed one and of one with little in it."""

import math
import re
from html.parser import HTMLParser

import pytest

from orchestrator.report.render import absence, render, scores
from orchestrator.report.run import GateReport, RunReport, StageReport, TargetReport
from orchestrator.report.words import duration, number
from orchestrator.stats import mean, percentile
from tests.bench.fake_result import fake_result


def level(concurrency):
    """A level as the benchmark stage reports it, with plausible times."""
    gap, first = 0.018 + 0.006 * concurrency, 0.035 + 0.021 * concurrency
    requests, e2e = 4 * concurrency + 28, first + 40 * gap
    waits = [first * (1 + 0.35 * math.sin(at)) for at in range(requests)]
    return {
        "concurrency": concurrency,
        "requests": requests,
        "latencies": {
            "ttft": spread(waits),
            "itl": spread([gap * (1 + 0.2 * math.cos(at)) for at in range(40)]),
            "tpot": spread([gap]),
            "e2e": spread([wait + 40 * gap for wait in waits]),
        },
        "requests_per_s": concurrency / e2e,
        "tokens_per_s": 40 * concurrency / e2e,
        "errors": {},
    }


def spread(values):
    shares = {f"p{share}": percentile(values, share) for share in (50, 95, 99)}
    return {"n": len(values), "mean": mean(values), **shares}


EVALUATION = {
    "exact_match": 0.841,
    "exact_match.base": 0.036,
    "exact_match.gain": 0.805,
    "exact_match.majority": 0.439,
    "groundedness.per_1000": 11.9,
    "groundedness.per_1000.low": 0.0,
    "groundedness.per_1000.high": 27.7,
    "groundedness.base.per_1000": 893.0,
    "perplexity": 1.31,
    "perplexity.base": 9.84,
}
PARITY = {
    "merged.kl_mean": 0.00031,
    "merged.exact_match": 1.0,
    "gguf.kl_mean": 0.0042,
    "gguf.logprob_diff": 0.021,
    "gguf.exact_match": 0.969,
    "gguf.prompt_tokens_identical": 1.0,
    "gguf.stops": 1.0,
}
COMPARED = {
    "prompts": {"short": 11, "medium": 21, "near_limit": 0},
    "comparison": {"merged": "the full vocabulary", "gguf": "the 100 likeliest tokens and one tail"},
    "worst": {"merged": []},
}
PREPARED = {
    "documents": {"train": 117, "test": 33},
    "rows": {"train": 1752, "test": 253},
    "licences": 20,
    "removed_from_test_identical_to_train": 10,
    "test_rows_by_licence": {
        "MIT": 111,
        "Apache-2.0": 79,
        "BSD-3-Clause": 39,
        "BSD-2-Clause": 8,
        "MPL-2.0": 8,
        "PSF": 8,
    },
    "skipped": {"no declaration that means one licence": 9, "shorter than 60 words": 1},
    "seed": 17,
    "base_model": "python scripts/build_base_model.py --out {out}",
}
SAMPLE = {
    "prompt": "Name the licence of this passage <and what it permits>: THE SOFTWARE IS PROVIDED \u201cAS IS\u201d",
    "reference": "Licence: MIT\nPermits: commercial use, modification",
    "base": "the the of licence",
    "tuned": "Licence: MIT\nPermits: commercial use, modification",
}
EVALUATED = {
    "samples": [SAMPLE] * 3,
    "exact_match": {"rows": 253, "intervals": {"exact_match": [0.794, 0.885], "exact_match.base": [0.016, 0.059]}},
}
GPUS = [{"name": "NVIDIA H100 80GB HBM3", "memory_bytes": 81559 * 2**20, "driver": "570.86.15"}]
HARDWARE = {"cpu": "AMD EPYC 9354", "cores": 32, "memory_bytes": 2**38, "gpus": GPUS, "system": "Linux 6.8.0 x86_64"}


GGUF = TargetReport(name="gguf", engine="llama_cpp", quantization="Q8_0", environment="llama_cpp 2026.10.11549")
LEFT_OUT = TargetReport(name="trt", engine="tensorrt_llm", quantization="FP8", left_out="no NVIDIA GPU")


def whole_run():
    curve = [[step, 0.3 + 3.1 * math.exp(-step / 40) + 0.05 * math.sin(step), 2900.0] for step in range(1, 220, 3)]
    levels = [level(concurrency) for concurrency in (1, 4, 8, 16)]
    benchmark = {"target": "gguf", "engine": "llama_cpp", "engine_version": "0c1e570", "levels": levels}
    stages = [
        StageReport(name="prepare", state="reused", seconds=141.0, report=PREPARED),
        StageReport(name="data", state="succeeded", seconds=6.1, metrics={"train_rows": 1752, "tokens_p95": 301}),
        StageReport(
            name="train",
            state="succeeded",
            seconds=402.7,
            metrics={"loss": 0.298, "steps": 219, "tokens_per_s": 2914.2, "trainable_parameters": 1_294_336},
            report={"loss_curve": curve, "training": {"method": "qlora", "quantization": "nf4", "double": True}},
        ),
        StageReport(name="evaluate", state="succeeded", seconds=88.0, metrics=EVALUATION, report=EVALUATED),
        StageReport(name="export", state="succeeded", seconds=9.4, metrics={"gguf.bytes": 4_239_219}),
        StageReport(name="parity", state="succeeded", seconds=31.0, metrics=PARITY, report=COMPARED),
        StageReport(name="deploy", state="succeeded", seconds=2.2),
        StageReport(
            name="benchmark",
            state="succeeded",
            seconds=48.0,
            metrics={"gguf.ttft_p95": 0.4127, "gguf.tokens_per_s": 131.4},
            report={**benchmark, "hardware": HARDWARE},
        ),
        StageReport(name="promote", state="succeeded", seconds=0.1),
    ]
    gates = [
        GateReport(name="evaluate.exact_match.gain", value=0.805, limit="at least 0.2", verdict="passed"),
        GateReport(name="benchmark.gguf.ttft_p95", value=0.4127, limit="at most 500 ms", verdict="passed"),
    ]
    return RunReport(
        run="legal-assistant-20261123-2140-7f3a",
        recipe="legal-assistant",
        digest="9b1d4c60e2f7a85513aa0f6e7d2c4b8891b2c3d4",
        state="succeeded",
        started=1_795_470_000.0,
        ended=1_795_470_000.0 + 590,
        owner="mara",
        stages=stages,
        gates=gates,
        targets=[GGUF, LEFT_OUT],
        release="legal-assistant@3",
        url="http://127.0.0.1:8800/v1",
        versions={"torch": "2.13.0", "transformers": "5.23.0", "trl": "1.16.0", "peft": "0.21.2", "ray": "2.60.0"},
    )


@pytest.fixture(scope="module")
def page():
    return render(whole_run())


class Reader(HTMLParser):
    """Text, ids and everything that could load something."""

    def __init__(self, page):
        super().__init__()
        self.ids, self.loads, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href") and not value.startswith("#"):
                self.loads.append((tag, value))
        if tag in ("script", "link", "img", "iframe"):
            self.loads.append((tag, None))

    def handle_data(self, data):
        self.text += data


def test_the_page_needs_nothing_else(page):
    reader = Reader(page)
    assert reader.loads == []
    assert "@import" not in page
    assert len(re.findall(r"url\((?!#)", page)) == 0
    assert len(reader.ids) == len(set(reader.ids)), "ids of the charts do not collide"


def test_the_page_says_what_happened(page):
    text = Reader(page).text
    for said in (
        "legal-assistant@3", "84.1 %", "3.6 %", "413 ms", "at most 500 ms", "AMD EPYC 9354", "NVIDIA H100 80GB HBM3",
        "Removed from test identical to train", "NF4".lower(), "transformers", "9 min 50 s", "most frequent answer",
        "over the 100 likeliest tokens and one tail",
    ):  # fmt: skip
        assert said in text, said
    assert page.count("<svg") == 7


def test_the_benchmark_shows_every_target_workload_and_load_where_its_result_is_kept():
    run = whole_run().model_copy(update={"benchmark": fake_result().model_dump(mode="json")})
    page = render(run)
    reader = Reader(page)
    assert len(reader.ids) == len(set(reader.ids))
    for said in ("vllm-fp8", "llama-q4", "rag", "16 req/s", "256 streams", "the engine died with code 139: <segfault"):
        assert said in reader.text, said
    assert page.count("TTFT p95</b> over output tokens/s") == 2, "one curve for each workload"


def test_exports_stand_side_by_side_and_those_left_out_say_why(page):
    table = page[page.index('id="exports"') : page.index('id="evaluation"')]
    text = " ".join(re.sub(r"<[^>]+>", " ", table).split())
    assert "gguf llama_cpp 2026.10.11549 Q8_0 4.24 MB 0.0042 96.9 % – 413 ms 131.4" in text
    assert "trt tensorrt_llm FP8 left out not runnable here: no NVIDIA GPU" in text
    assert "orch plan --explain serve" in text


def test_what_to_doubt_of_a_benchmark_stands_beside_its_numbers():
    page = render(whole_run().model_copy(update={"benchmark": fake_result().model_dump(mode="json")}))
    assert "Client-limited, add --workers" in Reader(page).text


def test_what_a_model_wrote_is_text(page):
    assert "<and what it permits>" not in page
    assert "&lt;and what it permits&gt;" in page


def test_charts_follow_the_theme(page):
    assert "var(--accent)" in page
    assert not re.search(r"#0[1-6]0[1-5]0[0-9]", page)


def test_a_failed_run_says_where_it_ended():
    stages = [
        StageReport(name="data", state="succeeded", seconds=3.0, metrics={"train_rows": 10}),
        StageReport(name="train", state="failed", seconds=12.0, error="no space left"),
        StageReport(name="evaluate", state="pending"),
        StageReport(name="parity", state="pending"),
    ]
    run = RunReport(
        run="r1",
        recipe="legal",
        digest="d",
        state="failed",
        stages=stages,
        error="no space left",
        next_step="orch resume",
    )
    text = Reader(render(run)).text
    assert "Not reached: the run ended at train." in text
    assert "The train stage failed: no space left" in text
    assert "This recipe has no benchmark stage." in text
    assert "orch resume" in text


def test_an_empty_run():
    text = Reader(render(RunReport(run="r1", recipe="legal", digest="d", state="queued", stages=[]))).text
    assert "This recipe has no gates." in text
    assert "The hardware was not recorded." in text


def test_a_running_stage_is_said():
    run = RunReport(
        run="r", recipe="l", digest="d", state="running", stages=[StageReport(name="train", state="running")]
    )
    assert absence(run, "train") == "The train stage is running."


def test_scores_pair_base_and_tuned():
    found = {score["name"]: score for score in scores(whole_run())}
    assert set(found) == {"exact_match", "groundedness.per_1000", "perplexity"}
    assert found["exact_match"]["interval"] == [0.794, 0.885]
    assert found["exact_match"]["majority"] == 0.439
    assert found["groundedness.per_1000"]["base"] == 893.0
    assert found["groundedness.per_1000"]["interval"] == (0.0, 27.7)
    assert found["perplexity"]["interval"] is None
    assert [found[name]["better"] for name in ("exact_match", "perplexity")] == ["higher", "lower"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.00084, "840 µs"), (0.0523, "52.3 ms"), (1.238, "1.24 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "name", "text"),
    [
        (0.841, "exact_match", "84.1 %"),
        (1.0, "gguf.stops", "yes"),
        (1294336, "trainable_parameters", "1,294,336"),
        (0.0042, "kl_mean", "0.0042"),
        (131.44, "tokens_per_s", "131.4"),
        (0.4127, "benchmark.gguf.ttft_p95", "413 ms"),
        (None, "", "–"),
        ("nf4", "", "nf4"),
    ],
)
def test_numbers(value, name, text):
    assert number(value, name) == text
