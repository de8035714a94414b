"""The summary of a cell: windows, rates, intervals that hold what they promise, steadiness, the timeline."""

import dataclasses
import random
import time

import numpy as np
import pytest

from orchestrator.bench.result import EngineSample, Slo
from orchestrator.bench.steady import steadiness
from orchestrator.bench.summary import summarize
from orchestrator.bench.timeline import timeline
from orchestrator.loadgen.load import Measurement
from orchestrator.loadgen.record import Record
from orchestrator.loadgen.scrape import EngineMetrics
from tests.measurements import at, failed, measurement, record


def even(streams: int = 4, rounds: int = 30, tokens: int = 10) -> Measurement:
    """A closed loop in lockstep: every answer takes one second, its tokens come every tenth of it."""
    records = [
        record(float(turn), [turn + (k + 1) / tokens for k in range(tokens)], index=turn * streams + stream)
        for turn in range(rounds)
        for stream in range(streams)
    ]
    return measurement(records, 0, rounds - 1)


def noisy(seed: int, *, requests: int = 300, streams: int = 8, tokens: int = 20) -> Measurement:
    """A closed loop with log-normal TTFT (median 50 ms) and ITL (median 10 ms); answers differ in speed."""
    draw = np.random.default_rng(seed)
    free, records = [0.0] * streams, []
    for index in range(requests):
        stream = free.index(min(free))
        sent = free[stream]
        first = sent + 0.05 * draw.lognormal(0, 0.4)
        gaps = 0.01 * draw.lognormal(0, 0.3, tokens - 1) * draw.lognormal(0, 0.2)
        times = [first, *(first + np.cumsum(gaps))]
        records.append(record(sent, times, index=index, prompt=index))
        free[stream] = times[-1]
    return measurement(records, 0, max(one.sent for one in records) / 1e9 - at(0) / 1e9)


def test_rates_and_latencies_of_an_even_load_are_exact() -> None:
    summary = summarize(even())
    assert (summary.requests, summary.succeeded, summary.duration_s) == (120, 120, 29)
    assert summary.requests_per_s == pytest.approx(4)
    assert summary.output_tokens_per_s == pytest.approx(40)
    assert summary.input_tokens_per_s == pytest.approx(40, rel=0.04)
    assert (summary.prompt_tokens, summary.completion_tokens) == (1200, 1200)
    assert summary.latencies["ttft"].p50 == pytest.approx(0.1)
    assert summary.latencies["itl"].n == 120 * 9
    assert summary.latencies["e2e"].max == pytest.approx(1.0)
    assert len(summary.latencies["e2e"].quantiles) == 101


def test_nothing_varies_in_an_even_load_so_the_intervals_are_points() -> None:
    summary = summarize(even())
    assert summary.intervals["output_tokens_per_s"] == pytest.approx((40, 40))
    assert summary.latencies["ttft"].intervals["p50"] == pytest.approx((0.1, 0.1))


def test_the_warm_up_counts_in_rates_where_it_reaches_into_the_window_but_in_no_latency() -> None:
    slow = record(-10.0, [0.5, 1.0], warmup=True)
    load = even()
    summary = summarize(measurement([slow, *load.records], 0, 29))
    assert summary.warmup_requests == 1
    assert summary.requests == 120
    assert summary.latencies["ttft"].max == pytest.approx(0.1)
    assert summary.output_tokens_per_s == pytest.approx((40 * 29 + 2) / 29)


def test_requests_sent_after_the_window_are_left_out() -> None:
    load = even()
    late = record(29.5, [40.0])
    assert summarize(measurement([*load.records, late], 0, 29)).requests == 120


def test_failures_are_counted_by_kind_and_in_no_latency() -> None:
    broken = [failed(3.0, "http_503", 3.1, detail="queue is full") for _ in range(10)]
    summary = summarize(measurement([*even().records, *broken, failed(4.0, "stall", 20.0)], 0, 29))
    assert (summary.requests, summary.succeeded) == (131, 120)
    assert summary.errors == {"http_503": 10, "stall": 1}
    assert summary.error_example == "queue is full"
    assert summary.latencies["e2e"].n == 120


def test_a_request_that_was_never_sent_is_named_but_not_measured() -> None:
    summary = summarize(measurement([*even().records, failed(5.0, "not_sent")], 0, 29), slo=Slo(ttft=1))
    assert summary.errors == {"not_sent": 1}
    assert (summary.requests, summary.goodput) == (120, 1)


def test_only_failures_give_a_summary_without_latencies() -> None:
    summary = summarize(measurement([failed(0.1 * i, "connect", 0.1 * i) for i in range(20)], 0, 2), slo=Slo(ttft=1))
    assert summary.latencies == {}
    assert (summary.requests_per_s, summary.goodput, summary.keeps_slo) == (0, 0, False)
    assert summary.steady is None


def test_no_records_at_all() -> None:
    summary = summarize(measurement([], 0, 0), slo=Slo(ttft=1))
    assert (summary.requests, summary.latencies, summary.timeline, summary.keeps_slo) == (0, {}, [], None)


def test_a_run_too_short_for_a_steady_window_has_rates_of_the_whole() -> None:
    records = [record(0.0, [1.0, 2.0], index=i) for i in range(4)]
    summary = summarize(measurement(records, 0, 0.001))
    assert summary.duration_s == pytest.approx(2)
    assert summary.requests_per_s == pytest.approx(2)
    assert summary.steady is None
    assert "whole run" in (summary.steady_note or "")


def test_goodput_and_cost() -> None:
    slow = [record(2.0 + i, [5.0 + i, 5.1 + i]) for i in range(6)]
    summary = summarize(measurement([*even().records, *slow], 0, 29), slo=Slo(ttft=0.5, share=0.95), usd_per_hour=3.6)
    assert summary.goodput == pytest.approx(120 / 126)
    assert summary.keeps_slo is True
    assert summary.goodput_per_s == pytest.approx(4)
    low, high = summary.intervals["goodput"]
    assert low < 120 / 126 < high < 1
    assert summary.usd_per_million_tokens == pytest.approx(0.001 / summary.output_tokens_per_s * 1e6)
    assert summary.usd_per_million_total_tokens is not None
    assert summary.usd_per_million_total_tokens < summary.usd_per_million_tokens


def test_without_an_slo_or_a_price_nothing_is_said_about_them() -> None:
    summary = summarize(even())
    assert (summary.goodput, summary.goodput_per_s, summary.keeps_slo) == (None, None, None)
    assert (summary.usd_per_million_tokens, summary.cached_tokens) == (None, None)


def test_a_percentile_with_too_few_values_beyond_it_has_no_interval() -> None:
    intervals = summarize(noisy(1, requests=120)).latencies["ttft"].intervals
    assert set(intervals) == {"mean", "p50", "p90", "p95"}


def test_the_engine_and_the_client_are_carried_along() -> None:
    summary = summarize(even(), engine=[EngineSample(t=1.0, running=4)])
    assert summary.engine[0].running == 4
    assert summary.client is not None
    assert summary.client.lag_p99_s == pytest.approx(2e-4)


def test_the_same_seed_gives_the_same_intervals() -> None:
    load = noisy(2)
    assert summarize(load, seed=5) == summarize(load, seed=5)
    assert summarize(load, seed=5).latencies["ttft"].intervals != summarize(load, seed=6).latencies["ttft"].intervals


def test_intervals_hold_the_truth_about_95_times_in_100() -> None:
    everything = summarize(noisy(10_000, requests=30_000, tokens=8))
    inside = {"ttft mean": 0, "ttft p50": 0, "ttft p95": 0, "itl p50": 0, "itl p95": 0, "output_tokens_per_s": 0}
    for seed in range(100):
        summary = summarize(noisy(seed, requests=200, tokens=8))
        for name in inside:
            latency, _, mark = name.partition(" ")
            truth = getattr(everything.latencies[latency], mark) if mark else getattr(everything, name)
            low, high = summary.latencies[latency].intervals[mark] if mark else summary.intervals[name]
            inside[name] += low <= truth <= high
    assert all(88 <= count <= 99 for count in inside.values()), inside


def test_itl_intervals_know_that_the_gaps_of_one_answer_belong_together() -> None:
    load = noisy(3, requests=200, tokens=200)
    low, high = summarize(load).latencies["itl"].intervals["mean"]
    gaps = np.concatenate([np.diff(np.array(one.content)) / 1e9 for one in load.records])
    as_if_independent = 2 * 1.96 * gaps.std() / len(gaps) ** 0.5
    assert high - low > 4 * as_if_independent


def test_an_open_loop_is_seen_by_its_schedule() -> None:
    draw = random.Random(4)
    records = []
    for index in range(200):
        due = index * 0.1
        records.append(record(due + 1e-5, [due + 0.2, due + 0.2 + draw.random()], intended=at(due), index=index))
    summary = summarize(measurement(records, 0, 20))
    low, high = summary.intervals["requests_per_s"]
    assert low <= summary.requests_per_s <= high
    assert summary.requests_per_s == pytest.approx(10, rel=0.06)


def test_a_steady_load_is_steady_in_99_of_100() -> None:
    loads = [noisy(seed, requests=250) for seed in range(100)]
    assert sum(steadiness(load.records, load.start, load.end)[0] is not True for load in loads) <= 1


def growing(requests: int, growth: float) -> list[Record]:
    """An open loop whose queue grows: TTFT rises by so much per request."""
    draw = random.Random(7)
    return [
        record(0.1 * i, [0.1 * i + 0.05 + growth * i + 0.01 * draw.random()], index=i, completion_tokens=1)
        for i in range(requests)
    ]


def test_a_queue_that_grows_is_not_steady_and_the_note_says_what_rose() -> None:
    steady, note = steadiness(growing(200, 0.002), at(0), at(20))
    assert steady is False
    assert note is not None
    assert "median TTFT rose from" in note


def test_a_server_that_slows_down_is_not_steady() -> None:
    records = [record(i * 0.1, [i * 0.1 + 0.05], completion_tokens=50 if i < 100 else 30) for i in range(200)]
    steady, note = steadiness(records, at(0), at(20))
    assert steady is False
    assert note is not None
    assert "output fell from 500 tokens/s" in note


def test_too_few_requests_say_nothing_about_steadiness() -> None:
    steady, note = steadiness(growing(20, 0.1), at(0), at(2))
    assert steady is None
    assert note is not None
    assert "20 of at least 30" in note


def test_the_timeline_counts_each_second_once() -> None:
    load = measurement([*even(rounds=5).records, failed(1.5, "http_503", 1.6)], 0, 4)
    seconds = timeline(load.records, load.start)
    assert [second.t for second in seconds] == [0, 1, 2, 3, 4]
    assert [second.sent for second in seconds] == [4, 5, 4, 4, 4]
    assert [second.ended for second in seconds] == [4, 5, 4, 4, 4]
    assert [second.errors for second in seconds] == [0, 1, 0, 0, 0]
    assert [second.output_tokens for second in seconds] == pytest.approx([40] * 5)
    assert [second.in_flight for second in seconds] == [4] * 5
    assert seconds[0].ttft_p50 == pytest.approx(0.1)


def test_a_long_cell_has_longer_steps() -> None:
    seconds = timeline([record(float(i), [i + 0.5]) for i in range(3000)], at(0))
    assert len(seconds) == 600
    assert seconds[1].t == 5
    assert sum(second.output_tokens for second in seconds) == pytest.approx(3000)


def test_ten_thousand_answers_of_a_hundred_tokens_take_seconds() -> None:
    load = noisy(0, requests=10_000, streams=64, tokens=100)
    start = time.process_time()
    summarize(load, slo=Slo(ttft=0.1, itl=0.02))
    assert time.process_time() - start < 6


def test_every_number_that_an_engine_may_tell_has_its_place_in_a_result():
    told = EngineMetrics(**{field.name: 1.0 for field in dataclasses.fields(EngineMetrics)})
    assert EngineSample(t=0, **dataclasses.asdict(told)).steps_total == 1
