"""Recorded traces: both formats, slices, wrong lines, and equal blocks as equal texts."""

import json
import time

import pytest

from orchestrator.errors import InputError
from orchestrator.loadgen import tokens
from orchestrator.loadgen.probe import Server
from orchestrator.loadgen.requests import NONCE
from orchestrator.loadgen.workload.trace import Row, TraceTalks, read_trace

HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens"
AZURE = [
    HEAD,
    "2023-11-16 18:17:03.9799600,4808,10",
    "2023-11-16 18:17:04.0319600,3180,8",
    "2023-11-16 18:17:13.9799600,110,27",
]
NONCE_TEXT = f"[{NONCE.decode()}]"
SALT = "12345678901234567"


def write(tmp_path, lines, name="trace.csv"):
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n")
    return path


def mooncake(*rows):
    keys = ("timestamp", "input_length", "output_length", "hash_ids")
    return [json.dumps(dict(zip(keys, row, strict=True))) for row in rows]


def words(text):
    return len(text.split())


def talks_of(rows, *, nonce=True, pace=1.0):
    server = Server("http://h/v1", "m", tokenize=words, prompt_tokens=lambda _, text: 10 + words(text))
    vocabulary = tokens.vocabulary_of(server, "chat", tokenizer=None, nonce=nonce)
    return list(TraceTalks(rows, tokens.Passages(vocabulary, 1), vocabulary, nonce, SALT, pace).talks())


def content(talk):
    (message,) = talk.opening()
    return message["content"]


def test_azures_format_is_read(tmp_path):
    rows = read_trace(write(tmp_path, AZURE))
    assert [(row.input_tokens, row.output_tokens) for row in rows] == [(4808, 10), (3180, 8), (110, 27)]
    assert [row.at for row in rows] == pytest.approx([0.0, 0.052, 10.0])


def test_the_year_after_it_is_read_with_its_time_zone(tmp_path):
    rows = read_trace(write(tmp_path, [HEAD, "2024-05-10 00:00:00.009930+00:00,5,1", "2024-05-10 00:00:02+00:00,6,1"]))
    assert [row.at for row in rows] == pytest.approx([0.0, 1.99007])


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the time zone cannot be set here")
def test_times_do_not_follow_the_clocks_of_this_machine(tmp_path, monkeypatch):
    path = write(tmp_path, [HEAD, "2023-10-29 01:30:00,5,1", "2023-10-29 03:30:00,5,1"])
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "Europe/Berlin")  # its clocks go back in that night
        time.tzset()
        rows = read_trace(path)
    time.tzset()
    assert rows[1].at == 7200


def test_mooncakes_format_is_read(tmp_path):
    lines = mooncake((27482, 6955, 52, [46, 47]), (30535, 6472, 26, [46, 2366]))
    for name in ("trace.jsonl", "trace.txt"):
        rows = read_trace(write(tmp_path, lines, name))
        assert rows == [Row(0.0, 6955, 52, (46, 47)), Row(pytest.approx(3.053), 6472, 26, (46, 2366))]


def test_only_the_first_rows_are_read_where_a_limit_is_given(tmp_path):
    assert len(read_trace(write(tmp_path, [*AZURE[:3], "nonsense"]), limit=2)) == 2


def test_a_window_begins_at_its_own_start(tmp_path):
    lines = mooncake(*((1000 * second, 5, 1, [second]) for second in range(10)))
    rows = read_trace(write(tmp_path, lines, "t.jsonl"), window=(3.5, 7.0))
    assert [(row.at, row.blocks) for row in rows] == [(0.5, (4,)), (1.5, (5,)), (2.5, (6,))]
    assert len(read_trace(write(tmp_path, lines, "t.jsonl"), window=(3.5, 7.0), limit=2)) == 2
    with pytest.raises(InputError, match="no requests between 60 and 90 s"):
        read_trace(write(tmp_path, lines, "t.jsonl"), window=(60, 90))


def test_wrong_lines_are_named_even_where_later_ones_are_right(tmp_path):
    lines = [HEAD, "yesterday,1,2", AZURE[1], "2023-11-16 18:17:04,many,2", "2023-11-16 18:17:04,1", AZURE[2]]
    with pytest.raises(InputError) as caught:
        read_trace(write(tmp_path, lines), limit=2)
    assert [line.split(":")[1] for line in caught.value.message.split("\n")] == ["2", "4", "5"]
    assert "ContextTokens" in str(caught.value)


@pytest.mark.parametrize(
    "line", ["{", '{"timestamp": 1}', "[1]", '{"timestamp": 1, "input_length": -5, "output_length": 1}']
)
def test_a_wrong_json_line_is_named(tmp_path, line):
    with pytest.raises(InputError, match=r"t\.jsonl:2: not a request of a trace"):
        read_trace(write(tmp_path, [*mooncake((1, 2, 3, [4])), line], "t.jsonl"))


def test_a_file_that_is_no_trace(tmp_path):
    with pytest.raises(InputError, match=r"trace\.csv:1: not the head of a trace: 'a,b,c'"):
        read_trace(write(tmp_path, ["a,b,c", "1,2,3"]))
    with pytest.raises(InputError, match="cannot read the trace"):
        read_trace(tmp_path / "none.csv")
    with pytest.raises(InputError, match="has no requests"):
        read_trace(write(tmp_path, [HEAD]))


def test_texts_are_as_long_as_recorded():
    (talk,) = talks_of([Row(0.0, 500, 9)])
    assert talk.turns[0].output_tokens == 9
    assert 10 + words(content(talk)) == 500


def test_equal_blocks_are_equal_beginnings_and_the_nonce_follows_them():
    rows = [Row(0, 1500, 1, (1, 2, 3)), Row(1, 1600, 1, (1, 2, 4, 5)), Row(2, 700, 1, (1, 6)), Row(3, 700, 1, (7, 8))]
    first, second, third, fourth = (content(talk) for talk in talks_of(rows))
    assert first.split(NONCE_TEXT)[0] == second.split(NONCE_TEXT)[0]
    assert words(first.split(NONCE_TEXT)[0]) == 1 + 2 * 512
    assert first.startswith(third.split(NONCE_TEXT)[0].rstrip())
    assert words(third.split(NONCE_TEXT)[0]) == 1 + 512
    assert first.startswith(f"[{SALT}]")
    assert fourth.startswith(NONCE_TEXT)
    assert [10 + words(text) for text in (first, second, third, fourth)] == [1500, 1600, 700, 700]
    assert [text.count(NONCE_TEXT) for text in (first, second, third, fourth)] == [1, 1, 1, 1]


def test_a_request_that_has_all_its_blocks_in_common_is_cut_at_its_length():
    rows = [Row(0, 1024, 1, (1, 2)), Row(1, 900, 1, (1, 2)), Row(2, 2000, 1, (1, 2, 3, 4))]
    longer, shorter, longest = (content(talk) for talk in talks_of(rows))
    assert longest.startswith(longer.split(NONCE_TEXT)[0].rstrip())
    assert longer.startswith(shorter.split(NONCE_TEXT)[0].rstrip())
    assert [10 + words(text) for text in (longer, shorter, longest)] == [1024, 900, 2000]


def test_without_nonces_all_blocks_follow_their_numbers():
    rows = [Row(0, 1024, 1, (1, 2)), Row(1, 1024, 1, (1, 3)), Row(2, 1024, 1, (1, 2))]
    first, second, third = (content(talk) for talk in talks_of(rows, nonce=False))
    assert first == third != second
    assert NONCE_TEXT not in first
    assert SALT not in first
    assert first.split()[:512] == second.split()[:512]


def test_a_quicker_replay_has_shorter_gaps():
    assert [talk.at for talk in talks_of([Row(0, 5, 1), Row(4, 5, 1)], pace=2.0)] == [0.0, 2.0]
