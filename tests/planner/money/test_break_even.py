"""A break-even is where the curves cross: a little below it one is cheaper, a little above it the other."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.planner.money import fleet, tco
from orchestrator.planner.money.break_even import break_even, hybrid_break_even
from tests.planner.money.tco_case import cases, values


def _over(v: dict[str, float], tokens: float, way: tco.Way = "self-hosted") -> float:
    """What a way costs more than the API at a load, USD a month."""
    return tco.total(tco.monthly(way, v, tokens)) - tco.total(tco.monthly("api", v, tokens))


def _slack(v: dict[str, float], tokens: float) -> float:
    return 1e-7 * tco.total(tco.monthly("self-hosted", v, tokens))


@given(v=cases())
def test_both_sides_of_the_first_crossing(v):
    first = break_even(v).first
    assume(first)
    assert _over(v, first * (1 - 1e-6)) >= -_slack(v, first)
    assert _over(v, first) <= _slack(v, first)


@given(v=cases(), part=st.floats(0.001, 0.999))
def test_below_the_first_crossing_self_hosting_is_never_cheaper(v, part):
    first = break_even(v).first
    assume(first != 0)
    tokens = (first or 1e12) * part
    assert _over(v, tokens) >= -_slack(v, tokens)


@given(v=cases(), factor=st.floats(1.000001, 1000))
def test_above_the_last_crossing_it_never_costs_more(v, factor):
    always = break_even(v).always
    assume(always)
    assert _over(v, always * factor) <= _slack(v, always * factor)
    assert always >= break_even(v).first


@given(v=cases(), dearer=st.floats(1.01, 1.6), staff=st.floats(0, 0.2))
def test_the_last_of_several_crossings_is_the_last(v, dearer, staff):
    # an API a little dearer than a full replica's GPUs: each further replica may be a loss again until it is filled
    step = tco.gpus(v, 1, 0)[0].usd
    usd = dearer * step / fleet.carried(v) * 1e6
    rates = dict.fromkeys([f"api.{kind}_usd_per_million" for kind in ("input", "cached", "output")], usd)
    v = {**v, **rates, "staff.run_fte": staff, "api.run_fte": 0.0, "egress.usd_per_gb": 0.0, "api.retry_share": 0.0}
    found = break_even(v)
    assume(found.always and found.first and found.always > found.first * (1 + 1e-6))
    started = (fleet.replicas(v, found.always) - 1) * fleet.carried(v)  # at which the last replica was added
    below = max(found.always * (1 - 1e-6), started * (1 + 1e-9))
    assert _over(v, min(below, found.always)) >= -_slack(v, found.always)
    assert _over(v, found.always * (1 + 1e-6)) <= _slack(v, found.always)


@given(v=cases())
def test_the_crossing_moves_out_when_staff_is_added(v):
    few, more = break_even(v).first, break_even({**v, "staff.run_fte": v["staff.run_fte"] + 1}).first
    assert (math.inf if more is None else more) >= (math.inf if few is None else few) * (1 - 1e-9)


def test_one_straight_line_when_the_capacity_is_unknown():
    v = values() | {"serving.tokens_per_s_per_replica": math.inf}
    found = break_even(v)
    assert not found.capacity_checked
    assert found.first == found.always
    assert _over(v, found.first) == pytest.approx(0, abs=1e-6)


def test_an_api_that_is_cheaper_than_the_gpus_is_never_beaten_and_the_reason_says_by_what():
    v = values(api__input_usd_per_million=0.05, api__output_usd_per_million=0.1)
    found = break_even(v)
    assert (found.first, found.always) == (None, None)
    assert "the GPUs of a full replica cost $0.799 per million tokens" in found.reason


def test_steps_may_cross_more_than_once():
    v = values(serving__tokens_per_s_per_replica=1100, staff__run_fte=0, api__run_fte=0.05, workload__peak_to_mean=1)
    found = break_even(v)
    capacity = fleet.carried(v)
    assert found.first
    assert found.always
    if found.always > found.first:
        assert any(_over(v, n * capacity * 1.000001) > 0 > _over(v, n * capacity) for n in range(1, 20))


def test_what_is_paid_once_moves_it_out():
    v = values()
    assert break_even(v, amortise_years=3).first > break_even(v).first
    assert break_even(v, amortise_years=1).first > break_even(v, amortise_years=3).first


@given(v=cases())
def test_both_sides_of_the_hybrids_crossing(v):
    found = hybrid_break_even(v)
    assume(found and 1e5 < found < 1e13)
    assert _over(v, found, "hybrid") <= _slack(v, found)
    assert _over(v, found * (1 - 2e-6), "hybrid") >= -_slack(v, found)
