"""Latencies of single requests against values worked out by hand."""

import pytest

from orchestrator import plugins
from orchestrator.loadgen import metrics
from orchestrator.loadgen.metrics import e2e, first_chunk, itl, normalized_latency, tpot, ttft
from tests.measurements import at, record

ANSWER = record(1.0, [1.5, 1.6, 1.9], ended=2.0, first_chunk=at(1.2), completion_tokens=5)


def test_every_metric_has_a_unit_and_a_formula() -> None:
    for name in plugins.names(metrics):
        module = plugins.load(metrics, name)
        assert module.UNIT
        assert ":" in module.__doc__


def test_latencies_are_found_by_listing_the_folder() -> None:
    assert metrics.latencies().keys() == {"ttft", "first_chunk", "itl", "tpot", "normalized_latency", "e2e"}


def test_each_latency_of_one_answer() -> None:
    assert ttft.values(ANSWER) == pytest.approx([0.5])
    assert first_chunk.values(ANSWER) == pytest.approx([0.2])
    assert itl.values(ANSWER) == pytest.approx([0.1, 0.3])
    assert tpot.values(ANSWER) == pytest.approx([0.4 / 4])
    assert normalized_latency.values(ANSWER) == pytest.approx([1.0 / 5])
    assert e2e.values(ANSWER) == pytest.approx([1.0])


def test_latency_counts_from_the_intended_time_so_that_a_late_send_does_not_flatter() -> None:
    late = record(3.0, [3.5, 3.6], intended=at(1.0), first_chunk=at(3.2), completion_tokens=2)
    assert ttft.values(late) == pytest.approx([2.5])
    assert first_chunk.values(late) == pytest.approx([2.2])
    assert e2e.values(late) == pytest.approx([2.6])
    assert normalized_latency.values(late) == pytest.approx([1.3])


def test_what_an_answer_does_not_have_gives_no_value() -> None:
    empty = record(1.0, [], ended=1.2)
    for metric in (ttft, first_chunk, itl, tpot, normalized_latency):
        assert metric.values(empty) == []
    assert e2e.values(empty) == pytest.approx([0.2])


def test_a_whole_answer_in_one_delta_has_no_time_per_token() -> None:
    assert tpot.values(record(1.0, [2.0], completion_tokens=100)) == []
    assert itl.values(record(1.0, [2.0], completion_tokens=100)) == []


def test_one_token_in_two_deltas_has_no_time_per_token() -> None:
    assert tpot.values(record(1.0, [2.0, 2.1], completion_tokens=1)) == []
