"""Own prompts: every form of row, read with line numbers, in an order that a seed decides."""

import itertools
import json

import pytest

from orchestrator.errors import InputError
from orchestrator.loadgen.workload.prompts import DatasetTalks, read_prompts

USER = {"role": "user", "content": "Which licence is this?"}


def write(tmp_path, *lines, name="prompts.jsonl"):
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n")
    return path


def chat(text):
    return [{"role": "user", "content": text}]


def test_the_answer_is_left_out(tmp_path):
    row = {"messages": [USER, {"role": "assistant", "content": "MIT"}], "source": "..."}
    assert read_prompts(write(tmp_path, json.dumps(row), "")) == [[USER]]


def test_a_prompt_alone_is_a_row(tmp_path):
    assert read_prompts(write(tmp_path, '{"prompt": "Say hello"}')) == [chat("Say hello")]


def test_a_text_file_has_a_prompt_a_line(tmp_path):
    assert read_prompts(write(tmp_path, "One?", "", "{Two}", name="prompts.txt")) == [chat("One?"), chat("{Two}")]


def test_sharegpt_rows_are_chats(tmp_path):
    said = [{"from": "gpt", "value": "Hi"}, {"from": "human", "value": "A?"}, {"from": "gpt", "value": "B"}]
    asked = [{"from": "system", "value": "S"}, {"from": "human", "value": "C?"}]
    rows = [{"id": "1", "conversations": said}, {"id": "2", "conversations": []}, {"id": "3", "conversations": asked}]
    wanted = [chat("A?"), [{"role": "system", "content": "S"}, *chat("C?")]]
    assert read_prompts(write(tmp_path, *map(json.dumps, rows))) == wanted
    assert read_prompts(write(tmp_path, json.dumps(rows), name="sharegpt.json")) == wanted


def test_a_file_of_json_lines_may_be_called_json_and_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text("\ufeff" + '{"prompt": "a"}\n{"prompt": "b"}\n', encoding="utf-8")
    assert read_prompts(path) == [chat("a"), chat("b")]


def test_only_the_first_rows_are_read_where_a_limit_is_given(tmp_path):
    assert read_prompts(write(tmp_path, '{"prompt": "a"}', "{half"), limit=1) == [chat("a")]


def test_a_line_separator_inside_a_text_ends_no_line(tmp_path):
    text = "one\u2028two\u0085three"
    line = json.dumps({"messages": [{"role": "user", "content": text}]}, ensure_ascii=False)
    assert read_prompts(write(tmp_path, line))[0][0]["content"] == text


@pytest.mark.parametrize(
    "line",
    [
        "{half",
        "[]",
        "7",
        '"prompt"',
        '{"text": "a"}',
        '{"prompt": ""}',
        '{"prompt": 7}',
        '{"messages": []}',
        '{"messages": "a"}',
        '{"messages": [{"role": "user"}]}',
        '{"messages": [{"role": 1, "content": "a"}]}',
        '{"messages": [{"role": "assistant", "content": "a"}]}',
        '{"conversations": [{"from": "nobody", "value": "a"}]}',
        '{"conversations": [{"from": "human"}]}',
    ],
)
def test_a_bad_line_is_named(tmp_path, line):
    with pytest.raises(InputError, match=r"prompts\.jsonl:2: not a prompt"):
        read_prompts(write(tmp_path, json.dumps({"messages": [USER]}), line))


def test_wrong_lines_are_listed_together_up_to_five(tmp_path):
    with pytest.raises(InputError) as caught:
        read_prompts(write(tmp_path, *["{}"] * 3, '{"prompt": "a"}', *["{}"] * 4))
    lines = caught.value.message.split("\n")
    assert [line.split(":")[1] for line in lines[:5]] == ["1", "2", "3", "5", "6"]
    assert lines[5].startswith("... and 2 more lines")


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        read_prompts(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="no prompts"):
        read_prompts(write(tmp_path))


def dataset(rows, **settings):
    return DatasetTalks(rows, **{"seed": 1, "nonce": False, **settings})


def test_talks_go_round_in_one_order_and_keep_the_numbers_of_their_rows():
    rows = [chat(str(number)) for number in range(10)]
    talks = list(itertools.islice(dataset(rows).talks(), 25))
    numbers = [talk.turns[0].prompt for talk in talks]
    assert numbers[:10] == numbers[10:20]
    assert sorted(numbers[:10]) == list(range(10))
    assert numbers[:10] != list(range(10))
    assert all(talk.opening() == rows[talk.turns[0].prompt] for talk in talks)


def test_the_nonce_is_in_the_first_message_only():
    rows = [[{"role": "system", "content": "Be brief."}, *chat("Why?")]]
    opening = next(dataset(rows, nonce=True).talks()).opening()
    assert [message["content"] for message in opening] == ["[@nonce-of-orch-0@] Be brief.", "Why?"]
    assert rows[0][0]["content"] == "Be brief."


def test_a_session_asks_what_its_row_asks_and_goes_on_with_the_next_rows():
    answer = {"role": "assistant", "content": "-"}
    rows = [[{"role": "system", "content": "S"}, *chat("a1"), answer, *chat("a2")], chat("b1")]
    talks = list(itertools.islice(dataset(rows, seed=2, turns=lambda: 3, think=lambda: 0.5).talks(), 6))
    sessions = [
        [*(message["content"] for message in talk.opening()), *(talk.later(turn) for turn in (1, 2))] for talk in talks
    ]
    assert sessions == [["S", "a1", "a2", "b1"]] * 6
    assert all(talk.turns[0].think_s == 0 and talk.turns[1].think_s == talk.turns[2].think_s == 0.5 for talk in talks)
    numbers = [turn.prompt for talk in talks for turn in talk.turns]
    assert numbers == list(range(18))
