"""Which answers count as broken, and which only look strange."""

import pytest

from orchestrator.stages._degenerate import kinds


def found(text: str, *, ended: bool = True, should_end: bool = True) -> list[str]:
    return kinds(text, ended=ended, should_end=should_end)


@pytest.mark.parametrize(
    "text",
    [
        "Apache-2.0: commercial use is permitted; the notice must stay.",
        "許可されています。ただし著作権表示が必要です。",
        "Разрешено.",
        "no, no, no, no",
        '{"licence": "MIT", "permits": ["use", "copy"]}',
        "| a | b |\n|---|---|\n| 1 | 2 |",
        ":-)",
        "👍",
    ],
)
def test_ordinary_answers_are_not_broken(text):
    assert found(text) == []


@pytest.mark.parametrize("text", ["", " \n "])
def test_an_answer_without_a_character_is_empty(text):
    assert found(text) == ["empty"]


@pytest.mark.parametrize(
    "text",
    [
        "It is MIT. " + "It is MIT. " * 8,
        "Licence: " + "aaaa" * 12,
        "a start, and then " + "the licence of the licence of " * 4,
        "許可許可許可許可" * 6,
    ],
)
def test_an_answer_that_goes_round_is_a_repetition(text):
    assert found(text) == ["repetition"]


def test_a_loop_that_was_cut_in_the_middle_of_its_unit_is_one():
    assert found(("one two three four " * 9)[:-7], ended=False) == ["repetition", "never_ending"]


def test_what_came_again_before_the_end_is_no_loop():
    assert found("ha" * 20 + " - but in the end it is the MIT licence.") == []


@pytest.mark.parametrize(
    "text",
    [
        "c o\x7fno\x01 p\ufffders\ufffd of\ufffd",
        "\ue000\ue001\ue002 text",
        "!$%&/()=?`*+#'-_.:,;<>|^@{[]}~!$ a",
    ],
)
def test_an_answer_that_is_no_text_is_garbage(text):
    assert found(text) == ["garbage"]


def test_one_that_was_cut_inside_a_character_is_no_garbage():
    assert found("許可\N{REPLACEMENT CHARACTER}", ended=False, should_end=False) == []
    assert found("許可\N{REPLACEMENT CHARACTER}") == ["garbage"]


def test_an_answer_without_end_counts_only_where_the_trained_models_ended():
    assert found("It goes on", ended=False) == ["never_ending"]
    assert found("It goes on", ended=False, should_end=False) == []
