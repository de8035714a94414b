"""Tokens and requests per second: only what falls inside the window counts."""

import pytest

from orchestrator.loadgen.metrics import throughput
from tests.measurements import at, failed, record


def test_tokens_are_spread_over_the_deltas_and_only_those_inside_the_window_count() -> None:
    answer = record(0.0, [1.0, 2.0, 3.0, 4.0], completion_tokens=8)
    assert throughput.output_tokens_per_s([answer], at(0), at(2)) == pytest.approx(2.0)
    assert throughput.output_tokens_per_s([answer], at(2), at(4)) == pytest.approx(2.0)


def test_neighbouring_windows_share_no_token() -> None:
    answers = [record(i * 0.3, [i * 0.3 + 0.1 * k for k in range(1, 20)]) for i in range(10)]
    parts = [throughput.output_tokens_per_s(answers, at(t), at(t + 1)) for t in range(6)]
    assert sum(parts) == pytest.approx(190)


def test_an_answer_without_a_delta_counts_where_it_ends() -> None:
    silent = record(0.0, [], ended=1.5, completion_tokens=3)
    assert throughput.output_tokens_per_s([silent], at(1), at(2)) == pytest.approx(3.0)


def test_prompts_count_where_the_first_delta_arrives_and_requests_where_they_end() -> None:
    answer = record(0.0, [0.5, 1.5], prompt_tokens=40)
    assert throughput.input_tokens_per_s([answer], at(0), at(1)) == pytest.approx(40.0)
    assert throughput.input_tokens_per_s([answer], at(1), at(2)) == 0
    assert throughput.requests_per_s([answer], at(0), at(1)) == 0
    assert throughput.requests_per_s([answer], at(1), at(2)) == pytest.approx(1.0)


def test_failures_do_not_count() -> None:
    broken = failed(0.0, "disconnected", ended=1.0, completion_tokens=9)
    assert throughput.output_tokens_per_s([broken], at(0), at(2)) == 0
    assert throughput.requests_per_s([broken], at(0), at(2)) == 0


def test_an_empty_window_has_no_rate() -> None:
    assert throughput.requests_per_s([record(0.0, [1.0])], at(1), at(1)) == 0


def test_requests_of_a_closed_loop_count_with_their_part_of_the_window() -> None:
    """Four streams in step, 1 s for each request: a little more or less of the window is not four requests."""
    waves = [
        record(float(wave), [wave + 0.5], ended=wave + 1 + 0.001 * stream) for wave in range(10) for stream in range(4)
    ]
    for end in (8.9999, 9.0, 9.0015, 9.4):
        assert throughput.streams_requests_per_s(waves, at(0), at(end)) == pytest.approx(4.0, rel=0.01)
    assert throughput.streams_requests_per_s([failed(0.0, "stall", ended=2.0)], at(0), at(1)) == 0
