"""Placement: what fits where, in which order, and why not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.catalog.catalog import Catalog, load
from orchestrator.planner import layouts
from orchestrator.planner.estimate import Estimate, Unknown
from orchestrator.planner.forecast import Layout, total
from orchestrator.planner.layouts import Request, Slot
from orchestrator.planner.money.prices import PriceRange
from orchestrator.planner.serving.serving import Serving
from orchestrator.planner.training.finetune import FineTune

CATALOG: Catalog = load()
MODEL = CATALOG.model("Qwen/Qwen3-8B")
TUNE = FineTune(method="qlora", sequence_len=2048, micro_batch_size=1)
TOKENS = Estimate(unit="tokens", value=5e6, low=4e6, high=6e6)
NO_TOKENS = Unknown(reason="unknown: rows")


def _slot(kind: str, count: int = 1, usd: float | None = 2.0, *, available: bool = True) -> Slot:
    price: PriceRange | Unknown = Unknown(reason="unknown: no price")
    if usd is not None:
        price = PriceRange(term="on-demand", low=usd, middle=usd, high=usd, providers=["x"], source="x")
    return Slot(kind=kind, count=count, gpu=CATALOG.find_gpu(kind), price=price, available=available)


def _names(found: list[Layout]) -> list[str]:
    return [f"{layout.slot} {layout.parallelism}" for layout in found]


def test_one_accelerator_can_be_used_and_several_in_every_way_are_only_foreseen() -> None:
    found = layouts.training(MODEL, TUNE, TOKENS, [_slot("H100"), _slot("H100", 2)])
    assert _names(found) == ["H100:1 1 GPU", "H100:2 1 of 2 GPUs", "H100:2 ddp", "H100:2 fsdp2", "H100:2 tensor"]
    assert [layout.executable for layout in found] == [True, True, False, False, False]


def test_what_does_not_fit_is_refused_in_gibibytes_with_the_smallest_change() -> None:
    full = FineTune(method="full", sequence_len=2048, micro_batch_size=1)
    (found,) = layouts.training(MODEL, full, TOKENS, [_slot("L4")], lambda *_: "train.adapter=qlora")
    assert found.fits is False
    assert found.refused is not None
    assert found.refused.startswith("needs ")
    assert found.refused.endswith(" GiB, has 22.0 visible")
    assert found.remedy == "train.adapter=qlora"


def test_an_impossible_parallelism_is_a_reason_and_not_a_crash() -> None:
    found = layouts.training(MODEL, TUNE, TOKENS, [_slot("H100", 3)])
    tensor = next(layout for layout in found if layout.parallelism == "tensor")
    assert tensor.refused == "32 heads of Qwen/Qwen3-8B cannot be divided over 3 GPUs"
    (served,) = layouts.serving("fp8", MODEL, Serving(quantization="fp8"), [_slot("H100", 3)], Request())
    assert served.refused == "32 attention heads of Qwen/Qwen3-8B cannot be divided over 3 GPUs"


def test_cheapest_first_or_fastest_first() -> None:
    slots = [_slot("A100-80GB", usd=0.5), _slot("H100", usd=9.0)]
    found = layouts.training(MODEL, TUNE, TOKENS, slots)
    assert _names(layouts.ranked(found, "cost"))[0] == "A100-80GB:1 1 GPU"
    assert _names(layouts.ranked(found, "time"))[0] == "H100:1 1 GPU"


def test_the_order_needs_no_number_of_tokens() -> None:
    slots = [_slot("H100", usd=9.0), _slot("A100-80GB", usd=0.5)]
    found = layouts.training(MODEL, TUNE, NO_TOKENS, slots)
    assert all(isinstance(layout.time, Unknown) for layout in found)
    assert _names(layouts.ranked(found, "cost"))[0] == "A100-80GB:1 1 GPU"


def test_what_is_refused_or_cannot_be_carried_out_comes_last() -> None:
    slots = [_slot("T4", usd=0.01), _slot("H100", 2, usd=0.1), _slot("H100", usd=5.0)]
    found = layouts.ranked(layouts.training(MODEL, FineTune(method="lora", sequence_len=4096), TOKENS, slots), "cost")
    tiers = [2 if layout.refused else 0 if layout.executable else 1 for layout in found]
    assert tiers == sorted(tiers)
    assert tiers[-1] == 2


def test_without_a_price_there_is_a_time_and_no_cost() -> None:
    (found,) = layouts.training(MODEL, TUNE, TOKENS, [_slot("H100", usd=None)])
    assert isinstance(found.time, Estimate)
    assert found.cost == Unknown(reason="unknown: no price", low=None, high=None)


def test_a_gpu_that_the_catalog_lacks_is_unknown_and_not_refused() -> None:
    (found,) = layouts.training(MODEL, TUNE, TOKENS, [_slot("Abacus-9000")])
    assert (found.fits, found.refused) == (None, None)
    assert isinstance(found.memory, Unknown)


def test_a_target_has_a_throughput_and_a_price_per_million_tokens() -> None:
    (found,) = layouts.serving("fp8", MODEL, Serving(quantization="fp8"), [_slot("H100")], Request(concurrency=16))
    assert isinstance(found.throughput, Estimate)
    assert isinstance(found.cost, Estimate)
    assert found.cost.value == pytest.approx(2.0 / 3600 / found.throughput.value * 1e6)
    assert found.cost.low < found.cost.value < found.cost.high


@given(st.floats(1e4, 1e9), st.floats(1.0, 5.0))
def test_more_tokens_never_take_less_time_or_money(tokens: float, more: float) -> None:
    def one(amount: float) -> Layout:
        spread = Estimate(unit="tokens", value=amount, low=0.8 * amount, high=1.5 * amount)
        (found,) = layouts.training(MODEL, TUNE, spread, [_slot("H100")])
        return found

    less, most = one(tokens), one(tokens * more)
    for small, large in ((less.time, most.time), (less.cost, most.cost)):
        assert isinstance(small, Estimate)
        assert isinstance(large, Estimate)
        assert small.value <= large.value
        assert small.low <= small.value <= small.high


def test_a_sum_with_an_unknown_part_is_unknown_and_at_least_what_is_certain() -> None:
    known = Estimate(unit="s", value=10, low=8, high=12)
    found = total([("train", known), ("data", Unknown(reason="unknown: the rows", low=1.0))], "s")
    assert found == Unknown(reason="unknown: of data: the rows", low=9.0)
    both = total([("train", known), ("data", known)], "s")
    assert isinstance(both, Estimate)
    assert (both.low, both.value, both.high) == (16, 20, 24)
