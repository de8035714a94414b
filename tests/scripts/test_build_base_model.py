"""A base model of two steps: what llama.cpp and Hugging Face read from its folder must agree."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    row = {"document": "LICENSE", "licence": "Apache-2.0", "text": (ROOT / "LICENSE").read_text()}
    (folder / "corpus.jsonl").write_text(json.dumps(row) + "\n")
    command = [sys.executable, str(ROOT / "scripts" / "build_base_model.py"), "--steps", "2"]
    subprocess.run([*command, "--dataset", str(folder), "--out", str(folder / "out")], check=True, capture_output=True)
    return folder / "out"


def test_hugging_face_and_sentencepiece_cut_the_same_tokens(model):
    import sentencepiece
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model / "tokenizer.model"))
    for text in ("Grant of Copyright License.", " two  spaces\nand é, 漢", "Permits: use\nForbids: nothing"):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert ids == pieces.encode(text)
        assert tokenizer.decode(ids) == text


def test_the_chat_markers_are_control_tokens_and_a_turn_ends_with_the_stop_token(model):
    import sentencepiece
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model / "tokenizer.model"))
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    ids = tokenizer(tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False)["input_ids"]
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert ids.count(start) == ids.count(end) == 2
    assert pieces.is_control(start)
    assert pieces.is_control(end)
    assert tokenizer.eos_token_id == end
    assert json.loads((model / "generation_config.json").read_text())["eos_token_id"] == end
    assert json.loads((model / "tokenizer_config.json").read_text())["add_bos_token"] is False


def test_every_width_suits_4_bit_blocks_and_k_quants(model):
    config = json.loads((model / "config.json").read_text())
    assert config["hidden_size"] % 256 == 0
    assert config["intermediate_size"] % 256 == 0
    assert config["vocab_size"] % 64 == 0


def test_an_empty_corpus_is_exit_code_2(tmp_path):
    (tmp_path / "corpus.jsonl").write_text("\n")
    command = [sys.executable, str(ROOT / "scripts" / "build_base_model.py"), "--dataset", str(tmp_path)]
    ended = subprocess.run([*command, "--out", str(tmp_path / "out")], capture_output=True, text=True)
    assert ended.returncode == 2
    assert "no documents in" in ended.stderr
