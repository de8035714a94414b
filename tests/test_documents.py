"""YAML with the place of every value."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.documents import parse, scalar


def test_numbers_and_booleans_are_those_of_yaml_1_2() -> None:
    text = "a: 1e-4\nb: 120_000\nc: yes\nd: true\ne: 1.5E3\nf: .5\n"
    assert parse(text, "x").data == {"a": 1e-4, "b": 120_000, "c": "yes", "d": True, "e": 1500.0, "f": 0.5}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_float_that_python_prints_is_read_back(number: float) -> None:
    assert scalar(repr(number)) == number


@given(st.integers())
def test_any_integer_is_read_back(number: int) -> None:
    assert scalar(str(number)) == number


def test_the_first_of_two_equal_keys_is_kept_and_the_second_reported() -> None:
    document = parse("a: 1\nb: 2\na: 3\n", "x.yaml")
    assert document.data == {"a": 1, "b": 2}
    assert [str(problem) for problem in document.problems] == ["x.yaml:3: duplicate key 'a', first on line 1"]


def test_lines_of_nested_values_are_known() -> None:
    document = parse("a:\n  - b: 1\n    c: 2\n", "x.yaml")
    assert document.origins[("a", 0, "c")].line == 3


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_an_empty_file_is_an_empty_mapping(text: str) -> None:
    assert parse(text, "x").data == {}
