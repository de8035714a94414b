"""YAML with the place of every value."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.documents import parse, scalar
from orchestrator.errors import InputError


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


@pytest.mark.parametrize("text", ["2024-05-01", "2026-13-45", "2024-05-01 10:00:00"])
def test_a_date_is_text(text: str) -> None:
    assert parse(f"revision: {text}\n", "x").data == {"revision": text}
    assert scalar(text) == text


def test_own_keys_win_over_merged_ones_and_are_no_duplicates() -> None:
    text = "b: &b {lr: 1, r: 2}\nc: &c {<<: *b, r: 3}\nd: {<<: *c, lr: 4}\ne: *c\nf: {<<: [{r: 9}, *b]}\n"
    document = parse(text, "x.yaml")
    assert document.problems == []
    expected = {"c": {"lr": 1, "r": 3}, "d": {"lr": 4, "r": 3}, "e": {"lr": 1, "r": 3}, "f": {"lr": 1, "r": 9}}
    assert document.data == {"b": {"lr": 1, "r": 2}} | expected
    assert (document.origins[("d", "r")].line, document.origins[("d", "lr")].line) == (2, 3)


def test_a_duplicate_beside_a_merge_key_is_still_reported() -> None:
    document = parse("b: &b {lr: 1}\nd:\n  <<: *b\n  lr: 2\n  lr: 3\n", "x.yaml")
    assert [str(problem) for problem in document.problems] == ["x.yaml:5: duplicate key 'lr', first on line 4"]


@pytest.mark.parametrize("text", ["a: !!int many\n", "a: {<<: 3}\n", "a: &a [*a]\n", "a: &a {<<: *a}\n"])
def test_a_value_that_cannot_be_made_is_bad_input(text: str) -> None:
    with pytest.raises(InputError, match="not YAML"):
        parse(text, "x.yaml")
