"""Quantities read what people write and print what they read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from orchestrator.config import Model
from orchestrator.units import Bytes, Seconds, Tokens, Usd


@pytest.mark.parametrize(
    ("kind", "text", "number", "printed"),
    [
        (Bytes, "80GB", 80_000_000_000, "80 GB"),
        (Bytes, "79.1GiB", 84_932_978_278, "79.1 GiB"),
        (Bytes, "512 MiB", 2**29, "512 MiB"),
        (Bytes, "1234567", 1_234_567, "1234567 B"),
        (Seconds, "500ms", 0.5, "500 ms"),
        (Seconds, "10m", 600, "10 m"),
        (Seconds, "6h", 21_600, "6 h"),
        (Seconds, "90 s", 90, "90 s"),
        (Usd, "$40", 40, "$40.00"),
        (Usd, "0.6", 0.6, "$0.60"),
        (Usd, "$0.0035", 0.0035, "$0.0035"),
        (Tokens, "1.5B", 1_500_000_000, "1.5 B"),
        (Tokens, "120_000", 120_000, "120 k"),
        (Tokens, "4096", 4096, "4096"),
    ],
)
def test_reads_and_prints(kind, text, number, printed):
    value = kind.parse(text)
    assert value == number
    assert str(value) == printed


@pytest.mark.parametrize("kind", [Bytes, Tokens])
@given(number=st.integers(0, 10**18))
def test_whole_quantities_survive_printing(kind, number):
    value = kind.parse(number)
    assert value == number
    assert kind.parse(str(value)) == value


@pytest.mark.parametrize("kind", [Seconds, Usd])
@given(number=st.floats(0, 1e12, allow_nan=False))
def test_real_quantities_survive_printing(kind, number):
    value = kind.parse(number)
    assert value == number
    assert kind.parse(str(value)) == value


@pytest.mark.parametrize("kind", [Bytes, Seconds, Usd, Tokens])
@given(amount=st.integers(0, 10**6), thousandths=st.integers(0, 999), data=st.data())
def test_parse_print_parse(kind, amount, thousandths, data):
    unit = data.draw(st.sampled_from(list(kind.UNITS)))
    value = kind.parse(f"{amount}.{thousandths:03d} {unit}")
    assert kind.parse(str(value)) == value
    assert str(kind.parse(str(value))) == str(value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Bytes, "80 gigs"),
        (Bytes, "-1GB"),
        (Bytes, True),
        (Seconds, "10M"),
        (Seconds, ""),
        (Seconds, float("nan")),
        (Seconds, "1e999h"),
        (Usd, "€40"),
        (Tokens, None),
    ],
)
def test_an_error_names_the_allowed_forms(kind, text):
    with pytest.raises(ValueError, match="write it like"):
        kind.parse(text)


def test_a_field_reads_text_and_numbers_and_is_stored_as_text():
    class Budget(Model):
        limit: Seconds = Seconds(60)

    budget = Budget.model_validate({"limit": "6h"})
    assert budget.limit > 3600
    assert Budget.model_validate_json(budget.model_dump_json()) == budget
    assert budget.model_dump_json() == '{"limit":"6 h"}'
    assert Budget.model_validate({"limit": 30}).limit == 30
    with pytest.raises(ValidationError, match="write it like"):
        Budget.model_validate({"limit": "soon"})
    assert TypeAdapter(Budget).json_schema()["properties"]["limit"]["type"] == ["string", "number"]
