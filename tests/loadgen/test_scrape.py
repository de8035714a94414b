"""The server's own metrics: one parser for every engine, and a thread that samples them while something is measured."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from orchestrator.loadgen.scrape import EngineMetrics, Scraper, parse

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a b {c} \\"d\\""} 3.0
vllm:num_requests_running{engine="1",model_name="a b"} 4.0
vllm:num_requests_waiting{engine="0"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 2.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.75
vllm:num_preemptions_total{engine="0"} 1.0
vllm:prompt_tokens_total{engine="0"} 1.2e+03 1700000000000
vllm:prompt_tokens_cached_total{engine="0"} 200.0
vllm:prefix_cache_hits_total{engine="0"} 999.0
vllm:generation_tokens_total{engine="0"} 400.0
"""
LLAMA_CPP = """\
llamacpp:prompt_tokens_total 100
llamacpp:prompt_tokens_cached_total 31
llamacpp:tokens_predicted_total 40
llamacpp:requests_processing 2
llamacpp:requests_deferred 1
llamacpp:n_busy_slots_per_decode 1.7
"""
SGLANG = """\
sglang:num_running_reqs{model_name="m"} 8
sglang:num_queue_reqs{model_name="m"} 4
sglang:token_usage{model_name="m"} 0.52
sglang:prompt_tokens_total{model_name="m"} 10
sglang:cached_tokens_total{model_name="m"} 6
sglang:generation_tokens_total{model_name="m"} 5
"""
TRTLLM = """\
trtllm_num_requests_running{model_name="undefined",engine_type="undefined"} 2
trtllm_num_requests_waiting{model_name="undefined"} 0
trtllm_kv_cache_utilization{model_name="undefined"} 0.62
trtllm_prompt_tokens_total{model_name="undefined"} 9
trtllm_prompt_cached_tokens_total{model_name="undefined"} 3
trtllm_generation_tokens_total{model_name="undefined"} 7
"""
TRTLLM_STEPS = """\
[{"iter": 153, "numActiveRequests": 9, "inflightBatchingStats": {"numScheduledRequests": 4}},
 {"iter": 154, "numActiveRequests": 3, "numQueuedRequests": 1, "gpuMemUsage": 76665782272,
  "kvCacheStats": {"maxNumBlocks": 200, "usedNumBlocks": 50}, "inflightBatchingStats": {"numScheduledRequests": 2}}]
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (VLLM, EngineMetrics(7, 2, 0.5, None, 1200, 400, 200, 1)),
        (LLAMA_CPP, EngineMetrics(2, 1, None, 1.7, 131, 40, 31, None)),
        (SGLANG, EngineMetrics(8, 4, 0.52, None, 10, 5, 6, None)),
        (TRTLLM, EngineMetrics(2, 0, 0.62, None, 9, 7, 3, None)),
        (TRTLLM_STEPS, EngineMetrics(3, 1, 0.25, 3, steps_total=154)),
        ('[{"iter": 1}]', EngineMetrics(steps_total=1)),
        (TRTLLM.replace("trtllm_", ""), EngineMetrics(2, 0, 0.62, None, 9, 7, 3, None)),
    ],
    ids=["vllm", "llama.cpp", "sglang", "trtllm", "trtllm's steps", "fields left out", "trtllm without a prefix"],
)
def test_each_engine_s_numbers_have_one_name(text: str, expected: EngineMetrics) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize("text", ["", "<html>no</html>", "[]", "vllm:num_requests_running NaN\n", "up 1\n{} 3\n"])
def test_a_text_without_known_numbers_says_nothing(text: str) -> None:
    assert parse(text) == EngineMetrics()


@contextmanager
def _server(answer: Callable[[str, str | None], tuple[int, str]]) -> Iterator[str]:
    """A server that answers a GET with `answer(path, Authorization)`; its base URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = answer(self.path, self.headers.get("Authorization"))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_samples_cover_the_measurement_from_its_start_to_its_end() -> None:
    asked, enough = 0, threading.Event()

    def answer(path: str, _: str | None) -> tuple[int, str]:
        nonlocal asked
        asked += 1
        if asked >= 4:
            enough.set()
        return 200, f"vllm:generation_tokens_total {asked}\n"

    before = time.time_ns()
    with _server(answer) as url, Scraper(url, interval_s=0.001) as scraper:
        assert enough.wait(10)
        assert scraper.samples[0].metrics.generated_tokens_total == 1
    counts = [sample.metrics.generated_tokens_total for sample in scraper.samples]
    assert counts == [float(number) for number in range(1, asked + 1)]
    times = [before, *(sample.at for sample in scraper.samples), time.time_ns()]
    assert times == sorted(times)
    assert scraper.note is None


def test_tensorrt_llm_shows_them_elsewhere() -> None:
    pages = {"/metrics": "[]", "/prometheus/metrics": TRTLLM}
    with _server(lambda path, _: (200, pages[path])) as url, Scraper(url) as scraper:
        pass
    assert [sample.metrics.running for sample in scraper.samples] == [2, 2]
    assert scraper.note is None


def test_statistics_that_reading_empties_are_sampled_where_there_is_no_other_text() -> None:
    steps = iter(["[]", "[]", TRTLLM_STEPS, "[]"])
    done = threading.Event()

    def answer(path: str, _: str | None) -> tuple[int, str]:
        if path != "/metrics":
            return 404, ""
        text = next(steps, None)
        if text is None:
            done.set()
        return 200, text or "[]"

    with _server(answer) as url, Scraper(url, interval_s=0.001) as scraper:
        assert done.wait(10)
    assert [sample.metrics.steps_total for sample in scraper.samples] == [154]
    assert scraper.note is None, "an idle second is no loss of the metrics"


def test_the_key_is_sent() -> None:
    def answer(_: str, key: str | None) -> tuple[int, str]:
        return (200, LLAMA_CPP) if key == "Bearer k" else (401, "")

    with _server(answer) as url, Scraper(url, headers={"Authorization": "Bearer k"}) as scraper:
        pass
    assert len(scraper.samples) == 2


@pytest.mark.parametrize(
    ("status", "text", "why"),
    [(404, "not found", "status 404"), (200, "up 1\n", "no number of a known engine")],
)
def test_a_server_without_metrics_gives_no_samples_and_the_reason(status: int, text: str, why: str) -> None:
    with _server(lambda *_: (status, text)) as url, Scraper(url) as scraper:
        pass
    assert scraper.samples == []
    assert scraper.note is not None
    assert why in scraper.note


def test_a_server_that_is_gone_leaves_the_samples_until_then() -> None:
    with _server(lambda *_: (200, LLAMA_CPP)) as url:
        scraper = Scraper(url)
        scraper.__enter__()
    scraper.__exit__()
    assert len(scraper.samples) == 1
    assert "refused" in str(scraper.note)
