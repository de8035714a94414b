"""Formulas against a stream with known times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.loadgen._old_metrics import Record, e2e, failure, itl, summarize, tpot, ttft


def record(**changed):
    fields = {"sent": 10.0, "ended": 11.0, "content": (10.2, 10.3, 10.8), "prompt_tokens": 20, "completion_tokens": 7}
    return Record(**{**fields, "finish_reason": "stop", "done": True, **changed})


def test_latencies_of_one_request():
    one = record()
    assert ttft(one) == pytest.approx([0.2])
    assert itl(one) == pytest.approx([0.1, 0.5])
    assert tpot(one) == pytest.approx([0.6 / 6]), "seven tokens came in three chunks"
    assert e2e(one) == [1.0]


@pytest.mark.parametrize("one", [record(content=(10.5,)), record(completion_tokens=1), record(content=())])
def test_what_says_nothing_about_decoding_has_no_tpot(one):
    assert tpot(one) == []


def test_an_empty_answer_has_no_first_token():
    assert ttft(record(content=())) == []
    assert failure(record(content=())) is None


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({}, None),
        ({"finish_reason": "length"}, None),
        ({"finish_reason": "abort"}, "finish_abort"),
        ({"finish_reason": None, "done": False}, "cut_short"),
        ({"completion_tokens": None}, "no_usage"),
        ({"done": False}, "no_done"),
        ({"error": "http_503"}, "http_503"),
    ],
)
def test_a_success_has_reason_usage_and_done(changed, kind):
    assert failure(record(**changed)) == kind


def test_a_summary_counts_successes_and_names_failures():
    later = record(sent=10.5, ended=12.0, content=(10.9, 11.0, 11.1))
    summary = summarize([record(), later, record(error="http_503", detail="busy"), record(done=False, ended=11.5)])
    assert (summary.requests, summary.succeeded) == (4, 2)
    assert summary.errors == {"http_503": 1, "no_done": 1}
    assert summary.error_example == "busy"
    assert summary.elapsed == 2.0
    assert summary.tokens_per_s == 7
    assert summary.requests_per_s == 1
    assert summary.latencies["ttft"] == pytest.approx({"n": 2, "mean": 0.3, "p50": 0.3, "p95": 0.39, "p99": 0.398})


def test_without_a_success_there_are_no_latencies():
    summary = summarize([record(error="connect")])
    assert summary.latencies == {}
    assert summary.tokens_per_s == 0
    assert summarize([]).requests == 0


@given(times=st.lists(st.floats(0, 100), min_size=2, max_size=50), tokens=st.integers(2, 500))
def test_the_parts_add_up(times, tokens):
    content = tuple(sorted(times))
    one = record(sent=0.0, ended=content[-1], content=content, completion_tokens=tokens)
    assert sum(itl(one)) == pytest.approx(tpot(one)[0] * (tokens - 1), abs=1e-9)
    assert ttft(one)[0] + sum(itl(one)) == pytest.approx(e2e(one)[0], abs=1e-9)
