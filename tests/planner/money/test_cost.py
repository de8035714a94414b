"""The cost of a run: wall time x GPUs x price, with an interval, never falling when any of them grows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.catalog.prices import GpuPrice
from orchestrator.planner.estimate import Estimate, Unknown
from orchestrator.planner.money.cost import Interruption, of_run, offers
from orchestrator.planner.money.prices import PriceRange, market
from orchestrator.planner.money.tokens_cost import Fleet, Throughput, per_million

amounts = st.floats(0.01, 1e4)
more = st.floats(1, 10)


def _time(seconds: float) -> Estimate:
    return Estimate(unit="s", value=seconds, low=seconds * 0.8, high=seconds * 1.3)


def _range(usd: float, term: str = "on-demand") -> PriceRange:
    return PriceRange(term=term, low=usd * 0.7, middle=usd, high=usd * 2, providers=["a"], source="a list")


def _price(provider: str, usd: float, term: str = "on-demand", date: str = "2026-09", **more: object) -> GpuPrice:
    return GpuPrice(gpu="h100-sxm", provider=provider, usd_per_gpu_hour=usd, term=term, date=date, source="s", **more)


def _numbers(cost: Estimate | Unknown | None) -> tuple[float, float, float]:
    assert isinstance(cost, Estimate)
    assert cost.low <= cost.value <= cost.high
    return cost.low, cost.value, cost.high


def test_two_hours_on_eight_gpus_at_three_dollars():
    cost = of_run(_time(7200), 8, _range(3.0))
    assert _numbers(cost) == pytest.approx((7200 * 0.8 / 3600 * 8 * 2.1, 48.0, 2.6 * 8 * 6))
    assert isinstance(cost, Estimate)
    assert cost.terms[0].because == "2.00 h x 8 GPU x $3.00/GPU-h (on-demand; a list)"


@given(seconds=amounts, gpus=st.integers(1, 64), usd=amounts, grow=more, term=st.sampled_from(["on-demand", "spot"]))
def test_cost_never_falls_with_time_gpus_or_price(seconds, gpus, usd, grow, term):
    base = _numbers(of_run(_time(seconds), gpus, _range(usd, term)))
    longer = _numbers(of_run(_time(seconds * grow), gpus, _range(usd, term)))
    wider = _numbers(of_run(_time(seconds), gpus + int(grow), _range(usd, term)))
    dearer = _numbers(of_run(_time(seconds), gpus, _range(usd * grow, term)))
    for other in (longer, wider, dearer):
        assert all(b >= a * (1 - 1e-12) for a, b in zip(base, other, strict=True))


@given(rate=st.floats(0, 0.5), lost=st.floats(0, 1000), grow=more, nodes=st.integers(1, 3))
def test_interruptions_never_make_a_run_cheaper(rate, lost, grow, nodes):
    calm, wild = Interruption(per_hour=rate, lost=lost), Interruption(per_hour=rate * grow, lost=lost)
    costs = [of_run(_time(3600), 1, _range(1, "spot"), nodes=nodes, interruption=i) for i in (calm, wild)]
    if not any(isinstance(cost, Unknown) for cost in costs):
        assert _numbers(costs[0])[1] <= _numbers(costs[1])[1] * (1 + 1e-12)
        assert _numbers(costs[0])[0] == pytest.approx(0.8 * 0.7)  # it may run through


def test_too_many_interruptions_never_finish():
    cost = of_run(_time(3600), 8, _range(1, "spot"), interruption=Interruption(per_hour=4, lost="30m"))
    assert isinstance(cost, Unknown)
    assert "may never finish" in cost.reason
    assert cost.low == pytest.approx(0.8 * 8 * 0.7)


def test_an_unknown_time_keeps_what_is_certain_and_an_unknown_price_its_reason():
    cost = of_run(Unknown(reason="unknown: no speed", low=3600), 2, _range(3))
    assert isinstance(cost, Unknown)
    assert (cost.reason, cost.low, cost.high) == ("unknown: no speed", pytest.approx(4.2), None)
    assert of_run(_time(1), 1, market([], "spot")) == Unknown(
        reason="unknown: the catalog has no spot price for this GPU"
    )


PRICES = [
    _price("Nebius", 2.95, date="2026 (commit 0082b04)"),
    _price("Nebius", 3.85, date="2026-09-25"),
    _price("Verda", 2.29),
    _price("Verda", 0.8, "spot"),
    _price("Akash", 2.71, "marketplace"),
    _price("median of 37 providers", 1.0),
    _price("Hearsay", 0.5, evidence="claimed"),
    _price("Other hearsay", 1.79, "reserved-1y", evidence="claimed"),
]


def test_each_provider_counts_once_with_its_newest_price():
    found = market(PRICES, "on-demand")
    assert isinstance(found, PriceRange)
    assert found.providers == ["Verda", "Akash", "Nebius"]
    assert found.middle == 2.71
    assert found.source == "catalog: 3 providers, 2026 to 2026-09-25"


def test_a_claim_counts_only_where_nobody_lists_a_price_and_says_so():
    found = market(PRICES, "reserved")
    assert isinstance(found, PriceRange)
    assert (found.middle, found.source) == (1.79, "Other hearsay, s, 2026-09 (claimed by a third party)")


def test_offers_are_sorted_by_cost_and_each_names_its_source():
    found = offers(_time(3600), 1, PRICES)
    assert [(offer.provider, offer.term) for offer in found] == [
        ("Verda", "spot"),
        ("Other hearsay", "reserved-1y"),
        ("Verda", "on-demand"),
        ("Akash", "marketplace"),
        ("Nebius", "on-demand"),
    ]
    assert found[0].wall_time.value == pytest.approx(3600 / (1 - 0.05 * 25 / 60))
    assert found[-1].cost.value == pytest.approx(3.85)


def test_a_half_busy_replica_with_a_spare_costs_four_times_as_much_a_token():
    throughput = Throughput(input_tokens_per_s=3000, output_tokens_per_s=1000)
    full = per_million(throughput, Fleet(), _range(3.6))
    half = per_million(throughput, Fleet(utilisation=0.5, spare_replicas=1), _range(3.6))
    assert full
    assert half
    assert full.total.value == pytest.approx(0.25)
    assert full.output
    assert full.output.value == pytest.approx(1.0)
    assert half.total.value == pytest.approx(4 * full.total.value)


@given(out=st.floats(1, 1e5), read=st.floats(0, 1e5), busy=st.floats(0.01, 0.5), spare=st.integers(0, 3), usd=amounts)
def test_dollars_a_token_fall_with_use_and_rise_with_spares_and_price(out, read, busy, spare, usd):
    def total(busy: float, spare: int, usd: float) -> float:
        found = per_million(
            Throughput(input_tokens_per_s=read, output_tokens_per_s=out),
            Fleet(utilisation=busy, spare_replicas=spare),
            _range(usd),
        )
        assert found
        return _numbers(found.total)[1]

    base = total(busy, spare, usd)
    assert total(2 * busy, spare, usd) <= base
    assert total(busy, spare + 1, usd) >= base
    assert total(busy, spare, 2 * usd) >= base


def test_a_replica_that_carries_nothing_has_no_price_a_token():
    assert per_million(Throughput(input_tokens_per_s=0, output_tokens_per_s=0), Fleet(), _range(1)) is None
