"""Errors of reported times against true ones."""

from array import array

import pytest
from mock_server import Answer
from truth import Outcome, Reported, errors, send_errors

MS = 1_000_000
T0 = 1_800_000_000_000_000_000


def answer(number: int, arrived_ms: float, token_ms: list[float]) -> Answer:
    at = T0 + int(arrived_ms * MS)
    return Answer(
        number=number,
        first_ns=at,
        last_ns=at,
        end_ns=at,
        connection=0,
        asked=len(token_ms),
        chat=True,
        stream=True,
        complete=True,
        kernel_time=True,
        request_id="",
        times=array("q", [at + int(ms * MS) for ms in token_ms]),
    )


def test_errors_are_reported_minus_true() -> None:
    truth = [answer(1, 0, [50, 60, 70]), answer(2, 1, [52, 62, 82])]
    told = [Reported(1, 51 * MS, [10 * MS, 10 * MS]), Reported(2, 55 * MS, [10 * MS, 16 * MS])]
    found = errors(Outcome(told, 1.0), truth, skip=0)
    assert found["ttft_overstated_ms"] == pytest.approx(53 - 51)
    assert found["ttft_error_p50_ms"] == pytest.approx(2)
    assert found["itl_error_p99_ms"] == pytest.approx(4, abs=0.2)


def test_the_first_requests_to_arrive_are_left_out() -> None:
    truth = [answer(2, 0, [50]), answer(1, 9, [50])]
    told = [Reported(1, 50 * MS), Reported(2, 99 * MS)]
    found = errors(Outcome(told, 1.0), truth, skip=1)
    assert (found["requests"], found["ttft_error_p99_ms"]) == (1, 0)


def test_a_mean_alone_is_held_against_the_true_mean() -> None:
    found = errors(Outcome([Reported(1, 50 * MS, [12 * MS])], 1.0), [answer(1, 0, [50, 55, 70])], skip=0)
    assert found["itl_error_p50_ms"] == pytest.approx(2)


def test_an_itl_too_many_is_no_match() -> None:
    with pytest.raises(ValueError, match="argument 2"):
        errors(Outcome([Reported(1, 50 * MS, [MS, MS, MS])], 1.0), [answer(1, 0, [50, 55, 70])], skip=0)


def test_an_even_schedule_is_found_behind_a_constant_delay() -> None:
    arrivals = [answer(number, 5 * number + 3, [1]) for number in range(100)]
    found = send_errors(Outcome([], 1.0), arrivals, 200, (T0 + 250 * MS, T0 + 300 * MS))
    assert found["send_error_p99_ms"] == 0
    assert found["arrived_in_stall"] == 10


def test_what_a_stalled_client_sends_late_is_an_error() -> None:
    arrivals = [answer(number, 5 * number if number < 50 or number > 69 else 350, [1]) for number in range(100)]
    found = send_errors(Outcome([], 1.0), arrivals, 200, (T0 + 250 * MS, T0 + 351 * MS))
    assert found["send_error_p99_ms"] == pytest.approx(100, abs=6)
    assert found["send_error_p50_ms"] == 0


def test_a_recorded_schedule_counts_as_it_is() -> None:
    arrivals = [answer(number, 5 * number + 3, [1]) for number in range(100)]
    intended = {number: T0 + 5 * number * MS for number in range(100)}
    found = send_errors(Outcome([], 1.0, intended_ns=intended), arrivals, 200, (T0 + 250 * MS, T0 + 300 * MS))
    assert found["send_error_p50_ms"] == 3
