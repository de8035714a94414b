"""Which chats a quantization is calibrated on."""

import json

from orchestrator.workers import calibration


class Words:
    """A tokenizer whose tokens are words."""

    def apply_chat_template(self, messages, *, tokenize, return_dict):
        return " ".join(message["content"] for message in messages).split()


def test_the_seed_draws_whole_chats_until_there_are_enough_tokens(tmp_path):
    rows = tmp_path / "rows.jsonl"
    chats = [[{"role": "user", "content": f"row {n}"}, {"role": "assistant", "content": "yes"}] for n in range(20)]
    rows.write_text("".join(json.dumps({"messages": chat, "source": "x"}) + "\n" for chat in chats))
    found = calibration.chats(rows)
    assert found == chats
    drawn = calibration.token_ids(Words(), calibration.draw(found, 17), 10)
    assert [len(row) for row in drawn] == [3, 3, 3, 3], "the fourth makes them enough"
    assert drawn == calibration.token_ids(Words(), calibration.draw(found, 17), 10)
    assert drawn != calibration.token_ids(Words(), calibration.draw(found, 18), 10)
    assert drawn != [["row", str(n), "yes"] for n in range(4)]
    assert len(calibration.token_ids(Words(), calibration.draw(found, 17), 10**6)) == 20


def test_a_long_chat_is_cut():
    chat = [{"role": "user", "content": "word " * 3000}]
    assert [len(row) for row in calibration.token_ids(Words(), [chat], 10)] == [calibration.MOST_TOKENS_OF_A_CHAT]


def test_what_was_drawn_is_written_down(tmp_path):
    calibration.record(tmp_path, [[1, 2], [3]], 17)
    assert json.loads((tmp_path / calibration.FILE).read_text()) == {"rows": 2, "tokens": 3, "seed": 17}
