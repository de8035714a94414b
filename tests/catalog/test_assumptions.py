"""Every assumption has a unit, a source and a date; a user's value takes its place within bounds, and says so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.catalog.assumptions import changed, find, shipped
from orchestrator.errors import InputError

KNOWN = shipped()
DAY = "2026-11-24"


@pytest.mark.parametrize("assumption", KNOWN.values(), ids=lambda assumption: assumption.id)
def test_a_shipped_assumption_is_complete_and_within_its_own_bounds(assumption):
    assert assumption.unit
    assert assumption.source
    assert assumption.date
    assert assumption.about.endswith(".")
    for value in (assumption.value, assumption.low, assumption.high):
        assert value is None or assumption.at_least <= value <= assumption.most
    if assumption.value is not None and assumption.low is not None:
        assert assumption.low <= assumption.value <= assumption.high


def test_a_changed_value_carries_its_own_source_and_leaves_the_shipped_one_alone():
    found = changed(KNOWN, "staff.run_fte", 2.0, "--set staff.run_fte=2", DAY)["staff.run_fte"]
    assert (found.value, found.source, found.low, found.high) == (2.0, "--set staff.run_fte=2", 0.25, 2.0)
    assert KNOWN["staff.run_fte"].value == 0.5


@given(name=st.sampled_from(sorted(KNOWN)), value=st.floats(0, 1))
def test_a_value_within_its_bounds_is_kept_and_its_range_holds_it(name, value):
    known = KNOWN[name]
    within = known.at_least + value * (min(known.most, known.at_least + 1e6) - known.at_least)
    asked = float(round(within)) if known.whole else within
    found = changed(KNOWN, name, asked, "test", DAY)[name]
    assert found.value == asked
    assert found.low is None or found.low <= asked <= found.high


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"did you mean staff\.run_fte"):
        find(KNOWN, "staff.run_ft")
    with pytest.raises(InputError, match=r"did you mean gpu\.spot_share"):
        find(KNOWN, "spot_share")
    with pytest.raises(InputError, match="groups: workload, serving"):
        find(KNOWN, "zzz")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("staff.run_fte", -1, "at least 0|between 0"),
        ("api.retry_share", 1.5, "between 0 and 1"),
        ("serving.min_replicas", 1.5, "whole number"),
        ("workload.peak_to_mean", 0.5, "between 1"),
        ("gpu.on_demand_usd_per_hour", 1e6, "between 0 and 1000"),
        ("staff.usd_per_year", float("nan"), "must be"),
    ],
)
def test_absurd_values_are_refused(name, value, words):
    with pytest.raises(InputError, match=words):
        changed(KNOWN, name, value, "test", DAY)
