"""Prompts: read with line numbers, in an order that a seed decides."""

import itertools
import json

import pytest

from orchestrator.errors import InputError
from orchestrator.loadgen.workload import endless, read_prompts, with_nonce

USER = {"role": "user", "content": "Which licence is this?"}


def write(tmp_path, *lines):
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_answer_is_left_out(tmp_path):
    row = {"messages": [USER, {"role": "assistant", "content": "MIT"}], "source": "..."}
    assert read_prompts(write(tmp_path, json.dumps(row), "")) == [[USER]]


def test_a_line_separator_inside_a_text_ends_no_line(tmp_path):
    text = "one\u2028two\u0085three"
    line = json.dumps({"messages": [{"role": "user", "content": text}]}, ensure_ascii=False)
    assert read_prompts(write(tmp_path, line))[0][0]["content"] == text


@pytest.mark.parametrize(
    "line",
    [
        "{half",
        "[]",
        '{"text": "a"}',
        '{"messages": []}',
        '{"messages": "a"}',
        '{"messages": [{"role": "user"}]}',
        '{"messages": [{"role": "assistant", "content": "a"}]}',
    ],
)
def test_a_bad_line_is_named(tmp_path, line):
    with pytest.raises(InputError, match=r"prompts\.jsonl:2: not a prompt"):
        read_prompts(write(tmp_path, json.dumps({"messages": [USER]}), line))


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        read_prompts(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="no prompts"):
        read_prompts(write(tmp_path))


def test_a_seed_decides_the_order():
    prompts = [[{"role": "user", "content": str(number)}] for number in range(20)]
    first, again, other = (list(itertools.islice(endless(prompts, seed=seed), 50)) for seed in (1, 1, 2))
    assert first == again != other
    assert first[:10] == first[20:30]
    assert {prompt[0]["content"] for prompt in first[:20]} == {str(number) for number in range(20)}


def test_a_nonce_comes_first_and_changes_only_a_copy():
    assert with_nonce([USER], "7")[0]["content"] == "[7] Which licence is this?"
    assert USER["content"] == "Which licence is this?"
