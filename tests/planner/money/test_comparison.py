"""The whole comparison: every assumption is listed, and each one changes something or says that it does not."""

from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.catalog.assumptions import Assumptions, shipped
from orchestrator.catalog.catalog import load
from orchestrator.errors import InputError
from orchestrator.planner.money import case
from orchestrator.planner.money.comparison import compare, numbers
from orchestrator.planner.money.prices import api_price
from orchestrator.planner.money.sensitivity import saving
from tests.planner.money.tco_case import assumptions

DAY = date(2026, 11, 24)
CATALOG = load()
GPT_4O = api_price(CATALOG.api_prices("gpt-4o"), DAY)


def _case(gpu: str = "H100", **ask: float) -> Assumptions:
    asked = case.Ask.model_validate({"tokens_per_month": 1.5e9, "input_share": 0.75, "gpus_per_replica": 2, **ask})
    found = case.priced_gpu(case.asked(shipped(), asked, DAY), gpu, CATALOG.gpu_prices(gpu), DAY)
    return case.priced_api(found, GPT_4O)


def _compared(known: Assumptions):
    return compare(known, versus="gpt-4o", hosted="own", api_price="a row")


COMPARED = _compared(_case(tokens_per_s_per_replica=4000))
SWINGS = {swing.assumption: swing for swing in COMPARED.sensitivity}


def test_every_assumption_is_listed():
    assert [listed.assumption.id for listed in COMPARED.assumptions] == list(shipped())


@pytest.mark.parametrize("listed", COMPARED.assumptions, ids=lambda listed: listed.assumption.id)
def test_an_assumption_changes_the_result_or_is_marked_as_without_effect(listed):
    known = listed.assumption
    swing = SWINGS.get(known.id)
    if not listed.applies:
        assert swing is None or swing.width == 0
    elif swing is None or not swing.width:  # it moves the hybrid or the break-even, or has no range of its own
        assert known.id.startswith(("hybrid.", "serving.", "workload.")) or known.low in (None, known.high)


def test_which_assumptions_do_not_apply_here_is_known():
    idle = {listed.assumption.id for listed in COMPARED.assumptions if not listed.applies}
    owned = {name for name in shipped() if name.startswith("owned.")}  # no machine is owned
    assert idle - {"hybrid.own_replicas"} == owned | {
        "gpu.spot_usd_per_hour",  # nothing is bought on spot
        "api.cached_usd_per_million",  # nothing is cached
        "api.batch_discount",  # nothing is sent as a batch
    }


def test_own_machines_need_a_price_and_then_cost_what_they_cost():
    known = _case()
    with pytest.raises(InputError, match=r"owned\.usd_per_gpu: no price of hardware is in the catalog"):
        _compared(case.settled(known, {"gpu.owned_share": (1, "test")}, DAY))
    own = {"gpu.owned_share": (1.0, "test"), "owned.usd_per_gpu": (36_000.0, "test")}
    price = _compared(case.settled(known, own, DAY)).own_fleet.usd_per_gpu_hour
    assert price == pytest.approx((36_000 / 48 + 100) / 730 + 1.2 * 1.3 * 0.12)


def test_the_bills_are_the_sums_of_their_lines():
    for bill in COMPARED.bills:
        assert bill.usd_per_month == pytest.approx(sum(item.usd for item in bill.monthly))
        assert bill.usd_over_years[1] == pytest.approx(bill.usd_once + 12 * bill.usd_per_month)
        assert bill.usd_over_years[3] == pytest.approx(bill.usd_once + 36 * bill.usd_per_month)
        assert all(item.because for item in [*bill.monthly, *bill.once])


def test_the_tornado_is_sorted_and_its_ends_are_the_comparison_with_that_end():
    widths = [swing.width for swing in COMPARED.sensitivity]
    assert widths == sorted(widths, reverse=True)
    v = numbers(_case(tokens_per_s_per_replica=4000))
    swing = SWINGS["staff.run_fte"]
    assert swing.saving_at_low == pytest.approx(saving({**v, "staff.run_fte": swing.low}, 3))
    low, high = COMPARED.saving_interval
    assert low < COMPARED.saving < high


def test_the_curve_holds_the_load_that_was_asked_for():
    (point,) = [point for point in COMPARED.curve if point.tokens_per_month == 1.5e9]
    assert point.usd == {bill.way: pytest.approx(bill.usd_per_month) for bill in COMPARED.bills}


def test_a_comparison_survives_json():
    assert type(COMPARED).model_validate_json(COMPARED.model_dump_json()) == COMPARED


def test_prices_come_from_the_catalog_with_source_and_range():
    known = _case()
    price = known["gpu.on_demand_usd_per_hour"]
    assert price.low < price.value < price.high
    assert "providers" in price.source
    assert known["api.output_usd_per_million"].value == 10
    assert "simonw/llm-prices" in known["api.output_usd_per_million"].source


def test_a_gpu_without_a_price_is_unknown_and_not_free():
    with pytest.raises(InputError, match=r"unknown: .*no on-demand price for MI355X"):
        _compared(_case("MI355X"))


def test_a_term_without_a_price_is_not_planned_with():
    known = _case("MI300X")
    assert known["gpu.reserved_share"].value == 0
    assert known["gpu.reserved_share"].source == "unknown: the catalog has no reserved price for MI300X"
    with pytest.raises(InputError, match="no reserved price"):
        _compared(case.settled(known, {"gpu.reserved_share": (0.5, "test")}, DAY))


def test_more_on_spot_leaves_less_to_reserve_unless_both_are_set():
    assert case.settled(_case(), {"gpu.spot_share": (0.6, "test")}, DAY)["gpu.reserved_share"].value == pytest.approx(
        0.4
    )
    with pytest.raises(InputError, match="more than 1 together"):
        case.settled(_case(), {"gpu.spot_share": (0.6, "test"), "gpu.reserved_share": (0.6, "test")}, DAY)


def test_an_unknown_throughput_is_said_and_not_filled_in():
    known = _case()
    assert known["serving.tokens_per_s_per_replica"].value is None
    assert any("how many tokens/s" in doubt for doubt in case.doubts(GPT_4O, known, DAY))
    found = _compared(known)
    assert found.own_fleet.utilisation is None
    assert not found.break_even.capacity_checked


def test_an_old_or_doubtful_price_is_said():
    o3 = api_price(CATALOG.api_prices("o3"), DAY)
    assert any("suspicious" in doubt for doubt in case.doubts(o3, _case(), DAY))
    assert any("days ago" in doubt for doubt in case.doubts(o3, _case(), date(2028, 1, 1)))


def test_no_tokens_is_nothing_to_compare():
    with pytest.raises(InputError, match="nothing to compare"):
        _compared(assumptions(workload__tokens_per_month=0))


@settings(deadline=None, max_examples=20)
@given(tokens=st.floats(1e4, 1e13), share=st.floats(0, 1))
def test_any_load_and_mix_can_be_compared(tokens, share):
    found = _compared(assumptions(workload__tokens_per_month=tokens, workload__input_share=share))
    assert min(bill.usd_over_years[3] for bill in found.bills) == next(
        bill.usd_over_years[3] for bill in found.bills if bill.way == found.cheapest
    )
