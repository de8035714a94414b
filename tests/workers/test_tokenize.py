"""The real worker, a tiny real tokenizer: only the assistant's turns are trained, and they end with the stop token."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny_model

pytestmark = pytest.mark.slow
pytest.importorskip("torch")


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    return tiny_model.build_base(tmp_path_factory.mktemp("models") / "base")


def tokenize(base: Path, directory: Path, rows: list[dict], **changes: object) -> subprocess.CompletedProcess[str]:
    directory.mkdir(exist_ok=True)
    file, request = directory / "train.jsonl", directory / "request.json"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = {"base_model": str(base), "rows": {"train": str(file)}, "sequence_len": 128, "directory": str(directory)}
    request.write_text(json.dumps(asked | changes))
    command = [sys.executable, "-m", "orchestrator.workers.tokenize", str(request), str(directory / "result.json")]
    return subprocess.run(command, capture_output=True, text=True)


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def trained_texts(base: Path, directory: Path) -> list[list[str]]:
    """The trained stretches of each row, as text."""
    from pyarrow import parquet
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    found = []
    for row in parquet.read_table(directory / "train.parquet").to_pylist():
        stretches: list[list[int]] = [[]]
        for token, marked in zip(row["input_ids"], row["assistant_masks"], strict=True):
            stretches[-1].append(token) if marked else stretches.append([])
        found.append([tokenizer.decode(stretch) for stretch in stretches if stretch])
    return found


def test_every_assistant_turn_is_trained_with_its_end_and_nothing_else(base, tmp_path):
    rows = [
        {"messages": [turn("user", "permission"), turn("assistant", "MIT")]},
        {
            "messages": [
                turn("system", "be brief"),
                turn("user", "assistant"),
                turn("assistant", "free of charge"),
                turn("user", "and?"),
                turn("assistant", "any person\nobtaining"),
            ]
        },
    ]
    assert tokenize(base, tmp_path, rows).returncode == 0
    assert trained_texts(base, tmp_path) == [
        ["MIT<|im_end|>"],
        ["free of charge<|im_end|>", "any person\nobtaining<|im_end|>"],
    ]
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["metrics"]["train_rows"] == 2
    assert result["metrics"]["truncated"] == 0
    assert result["report"]["end_of_turn"] == ["<|im_end|>"]


def test_long_rows_are_cut_and_a_row_without_a_trained_token_is_dropped(base, tmp_path):
    rows = [
        {"messages": [turn("user", "a"), turn("assistant", "copy " * 80)]},
        {"messages": [turn("user", "copy " * 80), turn("assistant", "a")]},
    ]
    assert tokenize(base, tmp_path, rows, sequence_len=64).returncode == 0
    metrics = json.loads((tmp_path / "result.json").read_text())["metrics"]
    assert (metrics["train_rows"], metrics["truncated"], metrics["dropped"]) == (1, 2, 1)
    ended = tokenize(base, tmp_path, rows[1:], sequence_len=64)
    assert ended.returncode == 2
    assert "raise sequence_len" in ended.stdout


def test_a_template_that_never_writes_the_stop_token_is_an_error(base, tmp_path):
    changed = tmp_path / "base"
    changed.mkdir()
    for file in base.iterdir():
        (changed / file.name).write_bytes(file.read_bytes())
    template = (base / "chat_template.jinja").read_text()
    (changed / "chat_template.jinja").write_text(template.replace("<|im_end|>", "."))
    ended = tokenize(changed, tmp_path / "out", [{"messages": [turn("user", "a"), turn("assistant", "b")]}])
    assert ended.returncode == 2
    assert "the model would never learn to stop" in ended.stdout
    assert "train row 1" in ended.stdout
