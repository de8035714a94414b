"""The server's own metrics, read each second beside a measurement: its queue, its KV cache, its token counters.

    with Scraper("http://127.0.0.1:8000/v1") as scraper:
        ...  # measure
    samples, why_not = scraper.samples, scraper.note

`parse` is the one reader for every engine: `NAMES` says what vLLM, llama.cpp, TensorRT-LLM and SGLang call each number
in Prometheus text, `iteration_stats` reads TensorRT-LLM's JSON. Counters and queue lengths are summed over the series
of a name (data-parallel ranks), shares are averaged. A server that shows no metrics gives no samples, and `note` says
why.
"""

import http.client
import math
import re
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from orchestrator.loadgen import iteration_stats

PATHS = ("/metrics", "/prometheus/metrics")
"""Tried in this order; TensorRT-LLM's /metrics is JSON, its Prometheus text lies at the second one."""
INTERVAL_S = 1.0
_TIMEOUT_S = 5.0
_MAX_BYTES = 20_000_000
_LINE = re.compile(r"(?P<name>[A-Za-z_:][A-Za-z0-9_:]*)(?:\{.*\})?\s+(?P<value>\S+)")


@dataclass(frozen=True)
class EngineMetrics:
    """The numbers that engines expose in one way or another; None where one does not."""

    running: float | None = None
    """Requests that are generated right now."""
    waiting: float | None = None
    """Requests accepted but not begun."""
    kv_cache_usage: float | None = None
    """Share of the KV cache in use, 0..1."""
    batch_size: float | None = None
    """Mean sequences per step (llama.cpp's is a mean since its start)."""
    prompt_tokens_total: float | None = None
    """Prompt tokens since the start, those found in a cache included, as a request's `usage` counts them."""
    generated_tokens_total: float | None = None
    """Tokens generated since the start."""
    cached_tokens_total: float | None = None
    """Prompt tokens since the start that were found in a cache."""
    preemptions_total: float | None = None
    """Requests that had to give up their place since the start."""
    steps_total: float | None = None
    """Forward passes since the start."""


NAMES: Mapping[str, tuple[str, ...]] = {
    "running": (
        "vllm:num_requests_running",
        "llamacpp:requests_processing",
        "sglang:num_running_reqs",
        "trtllm_num_requests_running",
        "num_requests_running",
    ),
    "waiting": (
        "vllm:num_requests_waiting",
        "llamacpp:requests_deferred",
        "sglang:num_queue_reqs",
        "trtllm_num_requests_waiting",
        "num_requests_waiting",
    ),
    "kv_cache_usage": (
        "vllm:kv_cache_usage_perc",
        "sglang:token_usage",
        "trtllm_kv_cache_utilization",
        "kv_cache_utilization",
    ),
    "batch_size": ("llamacpp:n_busy_slots_per_decode",),
    "prompt_tokens_total": (
        "vllm:prompt_tokens_total",
        "llamacpp:prompt_tokens_total",
        "sglang:prompt_tokens_total",
        "trtllm_prompt_tokens_total",
        "prompt_tokens_total",
    ),
    "generated_tokens_total": (
        "vllm:generation_tokens_total",
        "llamacpp:tokens_predicted_total",
        "sglang:generation_tokens_total",
        "trtllm_generation_tokens_total",
        "generation_tokens_total",
    ),
    "cached_tokens_total": (
        "vllm:prompt_tokens_cached_total",
        "vllm:prefix_cache_hits_total",
        "llamacpp:prompt_tokens_cached_total",
        "sglang:cached_tokens_total",
        "trtllm_prompt_cached_tokens_total",
        "prompt_cached_tokens_total",
    ),
    "preemptions_total": ("vllm:num_preemptions_total",),
    "steps_total": ("llamacpp:n_decode_total",),
}
"""Our name -> the engines' names, the first that a server shows counts; older TensorRT-LLM builds have no prefix."""
_SHARES = ("kv_cache_usage", "batch_size")
_PROMPT_TOKENS_LESS_CACHED = "llamacpp:prompt_tokens_total"
"""The one counter of prompt tokens that leaves out those found in the cache."""


def parse(text: str) -> EngineMetrics:
    """From the text of any known engine's metrics; lines that are none of its form are passed over."""
    if (told := iteration_stats.values(text)) is not None:
        return EngineMetrics(**told)
    series: dict[str, list[float]] = {}
    for line in text.splitlines():
        found = _LINE.match(line)
        if found and (value := _number(found["value"])) is not None:
            series.setdefault(found["name"], []).append(value)
    values = {name: _first(name, series) for name in NAMES}
    cached = values["cached_tokens_total"]
    if _PROMPT_TOKENS_LESS_CACHED in series and cached is not None:
        values["prompt_tokens_total"] = sum(series[_PROMPT_TOKENS_LESS_CACHED]) + cached
    return EngineMetrics(**values)


def _first(ours: str, series: Mapping[str, list[float]]) -> float | None:
    for name in NAMES[ours]:
        if found := series.get(name):
            return sum(found) / len(found) if ours in _SHARES else sum(found)
    return None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Sample:
    """What the server said at one moment."""

    at: int
    """ns of CLOCK_REALTIME, as in a Record: half-way between the question and the answer."""
    metrics: EngineMetrics


class Scraper:
    """Reads the metrics of the server at `url` (its base URL, with or without /v1) once a second, in a thread.

    The first sample is taken on entering, the last one on leaving, so that counters cover the whole measurement.
    """

    def __init__(
        self, url: str, *, headers: Mapping[str, str] | None = None, interval_s: float = INTERVAL_S
    ) -> None:  # fmt: skip
        self.samples: list[Sample] = []
        self.note: str | None = None
        """Why there are no samples, or none any more."""
        self._root, self._headers, self._interval_s = (
            url.rstrip("/").removesuffix("/v1"),
            dict(headers or {}),
            interval_s,
        )
        self._path: str | None = None
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scrape", daemon=True)

    def __enter__(self) -> Self:
        self._find()
        if self._path is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        if self._path is not None:
            self._thread.join()
            self._sample(self._path)

    def _run(self) -> None:
        assert self._path is not None, "started once the path is known"
        while not self._leaving.wait(self._interval_s):
            self._sample(self._path)

    def _find(self) -> None:
        """The first path with numbers; else one whose list of steps is only empty yet."""
        for path in PATHS:
            if self._sample(path):
                self._path, self.note = path, None
                return
        if iteration_stats.values(get(self._root + PATHS[0], self._headers)[1]) is not None:
            self._path, self.note = PATHS[0], None

    def _sample(self, path: str) -> bool:
        """Whether the server showed at least one known number; a server that misses a beat or makes no step leaves a
        gap.
        """
        before = time.time_ns()
        status, text = get(self._root + path, self._headers)
        metrics = parse(text) if status == http.client.OK else EngineMetrics()
        if iteration_stats.values(text) == {}:
            return False
        if metrics == EngineMetrics():
            self.note = self.note or _why_not(self._root, status, text)
            return False
        self.samples.append(Sample((before + time.time_ns()) // 2, metrics))
        return True


def _why_not(root: str, status: int, text: str) -> str:
    what = f"status {status}" if status else text
    said = "no number of a known engine" if status == http.client.OK else what
    return f"{root} shows no metrics ({said}); queue, KV cache and batch of the server stay unknown"


def get(url: str, headers: Mapping[str, str], timeout_s: float = _TIMEOUT_S) -> tuple[int, str]:
    """(status, text) of one GET, without proxies; (0, what went wrong) where there was no answer."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", parts.path or "/", headers=dict(headers))
        response = connection.getresponse()
        return response.status, response.read(_MAX_BYTES).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error) or type(error).__name__
    finally:
        connection.close()
