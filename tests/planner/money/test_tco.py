"""Bills add up, never fall when something gets dearer or more, and each line carries its arithmetic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.planner.money import fleet, tco
from tests.planner.money.tco_case import cases, values

GROW = {
    "self-hosted": ("gpu.on_demand_usd_per_hour", "gpu.reserved_usd_per_hour", "serving.gpus_per_replica"),
    "api": ("api.input_usd_per_million", "api.cached_usd_per_million", "api.output_usd_per_million", "api.run_fte"),
    "hybrid": ("gpu.on_demand_usd_per_hour", "api.output_usd_per_million", "staff.run_fte"),
}


def _month(way: tco.Way, v: dict[str, float], tokens: float | None = None) -> float:
    return tco.total(tco.monthly(way, v, v["workload.tokens_per_month"] if tokens is None else tokens))


@given(v=cases(), way=st.sampled_from(tco.WAYS), factor=st.floats(1, 5))
def test_a_month_never_gets_cheaper_when_a_price_or_the_gpus_grow(v, way, factor):
    for name in GROW[way]:
        assert _month(way, {**v, name: v[name] * factor}) >= _month(way, v) * (1 - 1e-9)


@given(v=cases(), way=st.sampled_from(tco.WAYS), factor=st.floats(1, 50))
def test_a_month_never_gets_cheaper_with_more_tokens(v, way, factor):
    tokens = v["workload.tokens_per_month"]
    assert _month(way, v, tokens * factor) >= _month(way, v, tokens) * (1 - 1e-9)


@given(v=cases(), factor=st.floats(1, 5))
def test_more_hours_or_more_years_never_cost_less(v, factor):
    longer = {**v, "gpu.hours_per_month": v["gpu.hours_per_month"] * factor}
    # more hours carry more tokens too, so the fleet is held
    assert tco.total(tco.gpus(longer, 3, 1)) >= tco.total(tco.gpus(v, 3, 1))
    for way in tco.WAYS:
        assert tco.over_years(way, v, 3) >= tco.over_years(way, v, 1)


@given(v=cases())
def test_the_hybrid_takes_the_number_of_replicas_that_costs_least(v):
    tokens = v["workload.tokens_per_month"]
    best = tco.hybrid_replicas(v, tokens)
    for other in {1, max(1, best - 1), best + 1, max(1, best // 2), 2 * best, fleet.replicas(v, tokens)}:
        forced = {**v, "hybrid.own_replicas": float(other)}
        assert _month("hybrid", forced) >= _month("hybrid", v) * (1 - 1e-9)


@given(v=cases())
def test_enough_replicas_carry_everything_and_the_share_grows_with_them(v):
    tokens = v["workload.tokens_per_month"]
    full = fleet.replicas(v, tokens)
    assert fleet.share_carried(v, tokens, full) == pytest.approx(1)
    shares = [fleet.share_carried(v, tokens, count) for count in range(min(full, 30))]
    assert shares == sorted(shares)
    assert shares[:1] == [0]


@given(peak=st.floats(1.05, 20), capacity=st.floats(0.01, 25))
def test_the_share_that_a_fleet_carries_is_the_area_under_the_cut_load_curve(peak, capacity):
    v = values(workload__peak_to_mean=peak)
    tokens = fleet.at_peak(v) / capacity
    steps = 4000
    curve = [peak * ((step + 0.5) / steps) ** (peak - 1) for step in range(steps)]
    area = sum(min(load, capacity) for load in curve) / steps
    assert fleet.share_carried(v, tokens, 1) == pytest.approx(min(1, area), abs=2e-3)


def test_the_api_bill_is_the_published_formula():
    v = values(api__cache_hit_share=0.4, api__retry_share=0.1, api__reasoning_overhead=0.5, api__batch_share=0.2)
    lines = {line.component: line.usd for line in tco.api_tokens(v, 1e6)}
    factor = 1.1 * (1 - 0.2 * 0.5)
    assert lines["input tokens"] == pytest.approx(0.75 * 0.6 * 2.5 * factor)
    assert lines["cached input tokens"] == pytest.approx(0.75 * 0.4 * 1.25 * factor)
    assert lines["output tokens"] == pytest.approx(0.25 * 1.5 * 10 * factor)


def test_a_spare_replica_is_paid_for_and_adds_no_capacity():
    two = tco.monthly("self-hosted", values(serving__spare_replicas=1), 1.5e9)
    one = tco.monthly("self-hosted", values(serving__spare_replicas=0), 1.5e9)
    assert tco.total(two) - tco.total(one) == pytest.approx(2 * 730 * 2.3)
    assert two[1].because == "1 replica(s) x 2 GPU x 730 h x $2.300"


def test_the_peak_sizes_the_fleet_and_a_full_replica_is_not_one_too_few():
    v = values(workload__peak_to_mean=2, serving__peak_utilisation=0.5)
    carried = 4000 * 0.5 / 2 * 730 * 3600
    assert fleet.carried(v) == pytest.approx(carried)
    assert fleet.replicas(v, carried) == 1
    assert fleet.replicas(v, 1.001 * carried) == 2
    assert fleet.replicas(v, 3 * carried) == 3


def test_years_grow_decline_and_are_discounted():
    v = values(api__price_decline_per_year=0.5, finance__discount_rate_per_year=0.1, workload__growth_per_year=1.0)
    first = _month("api", v)
    second = _month("api", tco.in_year(v, 1))
    tokens = tco.total(tco.api_tokens(v, 1.5e9))
    assert second == pytest.approx(first)  # twice the tokens at half the price
    assert tokens < first
    assert tco.over_years("api", v, 2) == pytest.approx(7000 + 12 * first + 12 * second / 1.1)


def test_a_hybrid_pays_one_gateway():
    lines = [line.component for line in tco.monthly("hybrid", values(), 1.5e9)]
    assert lines.count("platform") == 1
