"""Which prompts parity asks: buckets by length, and questions that fill the context."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Any:
    from orchestrator.workers import loading
    from tests import tiny_model

    return loading.load_tokenizer(tiny_model.build_base(Path(tmp_path_factory.mktemp("prompts")) / "base"))


def row(question: str, answer: str = "MIT", system: str | None = None) -> dict[str, Any]:
    first = [{"role": "system", "content": system}] if system else []
    return {"messages": [*first, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


ROWS = [row("any person " * count, answer=f"answer {count}") for count in (9, 1, 5, 3, 7, 2)]


def test_the_shortest_third_is_short_whatever_the_order_of_the_rows(tokenizer):
    from orchestrator.workers.prompts import held_out

    found = held_out(ROWS, 6, tokenizer)
    assert [chat["row"] for chat in found] == [0, 1, 2, 3, 4, 5]
    assert [chat["row"] for chat in found if chat["bucket"] == "short"] == [1, 5]
    assert found[1]["own"] == "answer 1"
    assert found[1]["source"] == "any person "


def test_fewer_prompts_than_rows_are_evenly_spaced(tokenizer):
    from orchestrator.workers.prompts import held_out

    assert [chat["row"] for chat in held_out(ROWS, 3, tokenizer)] == [0, 2, 4]


def test_a_question_is_asked_after_as_many_other_rows_as_fit(tokenizer):
    from orchestrator.workers.loading import prompt_ids
    from orchestrator.workers.prompts import near_limit

    found = near_limit(ROWS, 2, tokenizer, 200)
    assert [(chat["row"], chat["bucket"]) for chat in found] == [(0, "near_limit"), (3, "near_limit")]
    for chat in found:
        assert chat["prompt_ids"] == prompt_ids(tokenizer, chat["messages"])
        assert 150 < len(chat["prompt_ids"]) <= 200
        assert chat["messages"][-1] == ROWS[chat["row"]]["messages"][0]
        assert chat["own"] not in [turn["content"] for turn in chat["messages"]]
    assert near_limit(ROWS, 2, tokenizer, 200) == found


def test_a_system_turn_stays_first_and_those_of_earlier_rows_are_left_out(tokenizer):
    from orchestrator.workers.prompts import near_limit

    rows = [row(f"question {n}", system=f"rules {n}") for n in range(3)]
    (chat,) = near_limit(rows, 1, tokenizer, 120)
    roles = [turn["role"] for turn in chat["messages"]]
    assert chat["messages"][0]["content"] == "rules 0"
    assert roles.count("system") == 1
    assert roles[1::2] == ["user"] * len(roles[1::2])


@pytest.mark.parametrize(("rows", "room"), [(ROWS, 10), (ROWS[:1], 200), ([ROWS[0]] * 3, 200)])
def test_there_is_none_where_nothing_fits_before_the_question(tokenizer, rows, room):
    from orchestrator.workers.prompts import near_limit

    assert near_limit(rows, 1, tokenizer, room) == []
