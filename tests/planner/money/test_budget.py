"""A budget refuses what is over it at the middle, warns of what may be, and stops what has become so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.planner.estimate import Estimate, Unknown
from orchestrator.planner.money.budget import Budget, exceeded, judge, seconds_left, spent


def _cost(value: float, low: float | None = None, high: float | None = None) -> Estimate:
    return Estimate(unit="USD", value=value, low=low or value, high=high or value)


def _time(hours: float) -> Estimate:
    return Estimate(unit="s", value=hours * 3600, low=hours * 3600, high=hours * 3600)


BUDGET = Budget.model_validate({"max_cost_usd": 40, "max_duration": "6h"})


def test_within_the_budget_nothing_is_said():
    found = judge(BUDGET, _cost(20, 10, 40), _time(6))
    assert (found.obstacles, found.warnings) == ([], [])


def test_over_at_the_middle_refuses_with_what_was_found_and_what_is_allowed():
    (obstacle,) = judge(BUDGET, _cost(52.5, 41, 70), _time(1)).obstacles
    assert obstacle == "the run costs about $52.50, between $41.00 and $70.00; budget.max_cost_usd allows $40.00"


def test_over_at_the_high_end_only_warns():
    found = judge(BUDGET, _cost(30, 20, 45), _time(1))
    assert found.obstacles == []
    assert found.warnings == ["the run costs about $30.00, but up to $45.00; budget.max_cost_usd allows $40.00"]


def test_both_limits_are_judged():
    assert len(judge(BUDGET, _cost(50), _time(7)).obstacles) == 2


def test_an_unknown_cost_warns_unless_its_certain_part_is_over():
    reason = "unknown: no price"
    assert reason in judge(BUDGET, Unknown(reason=reason), _time(1)).warnings[0]
    assert judge(BUDGET, Unknown(reason=reason, low=41), _time(1)).obstacles == [
        "the run costs at least $41.00; budget.max_cost_usd allows $40.00"
    ]


def test_no_budget_allows_everything():
    assert judge(Budget(), _cost(1e9), _time(1e6)).obstacles == []


def test_a_run_is_stopped_when_it_has_spent_its_budget():
    assert exceeded(BUDGET, 0, 3600 * 4.9, 8.0) is None
    assert exceeded(BUDGET, 0, 3600 * 5.1, 8.0) == "the run has cost $40.80; budget.max_cost_usd is $40.00"
    assert exceeded(BUDGET, 0, 3600 * 6.5, None) == "the run has lasted 6 h 30 min; budget.max_duration is 6 h 0 min"
    assert exceeded(BUDGET, 0, 3600 * 5.9, None) is None


@pytest.mark.parametrize("usd_per_hour", [None, 2.0, 80.0])
def test_a_timer_that_waits_for_the_seconds_left_finds_the_budget_spent(usd_per_hour):
    left = seconds_left(BUDGET, 100, 160, usd_per_hour)
    assert left is not None
    assert exceeded(BUDGET, 100, 160 + left - 1, usd_per_hour) is None
    assert exceeded(BUDGET, 100, 160 + left + 1, usd_per_hour) is not None


@given(start=st.floats(0, 2e9), one=st.floats(0, 1e7), more=st.floats(0, 1e7), price=st.floats(0, 1e4))
def test_spending_never_falls(start, one, more, price):
    assert 0 <= spent(start, start + one, price) <= spent(start, start + one + more, price)


def test_a_clock_that_goes_back_has_spent_nothing():
    assert spent(100, 50, 3.0) == 0
