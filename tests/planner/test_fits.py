"""Which models fit a GPU: verdicts, their order, and what stays unknown."""

from pathlib import Path

from orchestrator.catalog.catalog import load
from orchestrator.planner.fits import ORDER, fit, fits
from orchestrator.planner.training.finetune import FineTune

CATALOG = load(directory=Path(__file__).parent)
TUNE = FineTune(method="qlora", sequence_len=2048)
SMALL = CATALOG.gpu("RTX-4090")


def test_a_verdict_follows_from_the_interval_and_the_visible_memory() -> None:
    for one in fits(CATALOG.models, TUNE, SMALL):
        if one.needed is not None and one.low is not None and one.high is not None:
            assert one.low <= one.needed <= one.high
            expected = "does not fit" if one.needed > one.visible else "fits" if one.high <= one.visible else "tight"
            assert one.verdict == expected, one.model


def test_those_that_fit_come_first_the_largest_on_top() -> None:
    found = fits(CATALOG.models, TUNE, SMALL)
    assert [ORDER.index(one.verdict) for one in found] == sorted(ORDER.index(one.verdict) for one in found)
    sizes = [one.parameters or 0 for one in found if one.verdict == "fits"]
    assert sizes == sorted(sizes, reverse=True)


def test_a_model_of_unknown_dimensions_is_unknown_unless_its_weights_alone_are_too_much() -> None:
    unknown = fit(CATALOG.model("Qwen/Qwen3.5-9B"), TUNE, SMALL)
    assert unknown.verdict == "unknown"
    assert (unknown.reason or "").startswith("unknown: ")
    assert fit(CATALOG.model("Mistral-Medium-3.5-128B"), TUNE, SMALL).verdict == "does not fit"


def test_a_module_that_a_model_does_not_have_makes_it_unknown() -> None:
    found = fit(CATALOG.model("Qwen3-8B"), FineTune(target_modules=["kv_b_proj"]), SMALL)
    assert found.verdict == "unknown"
