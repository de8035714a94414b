"""The one API row that is valid on a day, with its vendor and tier; never a guess between two."""

from datetime import date

import pytest

from orchestrator.catalog.prices import ApiPrice
from orchestrator.errors import InputError
from orchestrator.planner.money.prices import api_price

DAY = date(2026, 11, 24)


def _row(usd: float, **more: str) -> ApiPrice:
    fields = {"vendor": "a", "model": "m", "observed": "2026-08", "source": "list"} | more
    return ApiPrice.model_validate({**fields, "input_usd_per_million": usd, "output_usd_per_million": 4 * usd})


CHANGED = [_row(2, valid_to="2026-09-01"), _row(3, valid_from="2026-09-01")]


@pytest.mark.parametrize(("day", "usd"), [(date(2026, 8, 31), 2), (date(2026, 9, 1), 3), (DAY, 3)])
def test_the_day_decides(day, usd):
    assert api_price(CHANGED, day).input_usd_per_million == usd


def test_a_newer_row_wins_over_one_without_dates():
    assert api_price([_row(1), _row(2, valid_from="2025-12")], DAY).input_usd_per_million == 2


def test_the_tier_is_asked_for_by_its_first_word():
    rows = [_row(1), _row(2, tier="long-context >200k")]
    assert api_price(rows, DAY).input_usd_per_million == 1
    assert api_price(rows, DAY, tier="long-context").input_usd_per_million == 2
    with pytest.raises(InputError, match="no batch price of m; the catalog has a: long-context >200k; a: standard"):
        api_price(rows, DAY, tier="batch")


def test_two_vendors_must_be_told_apart():
    rows = [_row(1), _row(2, vendor="b")]
    with pytest.raises(InputError, match="sold by a and b"):
        api_price(rows, DAY)
    assert api_price(rows, DAY, vendor="b").input_usd_per_million == 2


def test_a_day_without_a_price_is_an_error():
    with pytest.raises(InputError, match="no price of m is valid on 2026-11-24"):
        api_price([_row(1, valid_to="2026-01-01")], DAY)
