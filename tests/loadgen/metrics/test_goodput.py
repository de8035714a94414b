"""Goodput: which requests keep an SLO."""

import pytest

from orchestrator.loadgen.metrics import goodput
from tests.measurements import at, failed, record

QUICK = record(0.0, [0.1, 0.2, 0.3], ended=0.3)
SLOW_START = record(0.0, [0.9, 1.0, 1.1], ended=1.1)
STUTTER = record(0.0, [0.1, 0.2, 1.3], ended=1.3)


def test_a_request_must_keep_every_limit() -> None:
    limits = {"ttft": 0.5, "itl": 0.2}
    assert [goodput.kept(one, limits) for one in (QUICK, SLOW_START, STUTTER)] == [True, False, False]


def test_the_itl_limit_is_on_the_mean_of_the_request() -> None:
    assert goodput.kept(STUTTER, {"itl": 0.65})
    assert not goodput.kept(STUTTER, {"itl": 0.55})


def test_a_failure_keeps_nothing_and_counts_in_the_share() -> None:
    records = [QUICK, QUICK, SLOW_START, failed(0.0, "http_503")]
    assert goodput.share(records, {"ttft": 0.5}) == pytest.approx(0.5)
    assert goodput.share(records, {}) == pytest.approx(0.75)


def test_a_limit_on_what_a_request_does_not_have_is_kept() -> None:
    assert goodput.kept(record(0.0, [0.1], completion_tokens=1), {"tpot": 0.001})


def test_the_rate_counts_requests_that_ended_in_the_window() -> None:
    records = [QUICK, SLOW_START, STUTTER]
    assert goodput.per_s(records, {"ttft": 0.5}, at(0), at(1)) == pytest.approx(1.0)
    assert goodput.per_s(records, {"ttft": 0.5}, at(0), at(2)) == pytest.approx(1.0)
