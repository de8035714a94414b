"""Checkpoints on a disk that loses things."""

import json
import re
from pathlib import Path

import pytest

from orchestrator.errors import StaleClaimError
from orchestrator.fencing import Writer
from orchestrator.workers import checkpoints


def _saved(folder: Path, step: int, writer: Writer | None = None) -> Path:
    made = folder / "partial" / f"checkpoint-{step}"
    (made / "rng").mkdir(parents=True)
    (made / "weights").write_text(f"weights of step {step}")
    (made / "rng" / "state").write_text("state")
    return checkpoints.publish(made, folder, step, writer)


def _found(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint-*"))


def test_a_checkpoint_appears_whole_and_the_two_newest_are_kept(tmp_path: Path) -> None:
    for step in (8, 9, 10, 11):
        assert checkpoints.damage(_saved(tmp_path, step)) is None
    assert _found(tmp_path) == ["checkpoint-10", "checkpoint-11"]
    assert checkpoints.newest(tmp_path, pytest.fail) == tmp_path / "checkpoint-11"


def test_its_manifest_says_which_attempt_wrote_it(tmp_path: Path) -> None:
    writer = Writer(folder=tmp_path, run="r1", fence=3)
    writer.begin()
    about = json.loads((_saved(tmp_path, 5, writer) / "manifest.json").read_text())
    assert (about["run"], about["fence"], about["step"]) == ("r1", 3, 5)
    assert sorted(about["files"]) == ["rng/state", "weights"]


def test_an_older_attempt_publishes_nothing_and_takes_nothing_away(tmp_path: Path) -> None:
    old, new = (Writer(folder=tmp_path, run="r1", fence=fence) for fence in (1, 2))
    old.begin()
    _saved(tmp_path, 1, old)
    new.begin()
    with pytest.raises(StaleClaimError):
        _saved(tmp_path, 2, old)
    assert _found(tmp_path) == ["checkpoint-1"]


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("weights", None, "weights is missing"),
        ("weights", "weights of step", r"weights is not what was written \(15 bytes of 17\)"),
        ("weights", "weights of step 3", r"weights is not what was written \(17 bytes of 17\)"),
        ("new", "x", "new is none of its files"),
        ("manifest.json", None, r"it has no manifest\.json"),
        ("manifest.json", "{", r"its manifest\.json cannot be read"),
        ("manifest.json", "[]", r"its manifest\.json cannot be read"),
        ("manifest.json", '{"files": {"weights": 3}}', r"its manifest\.json cannot be read"),
    ],
)
def test_a_damaged_one_is_said_and_the_one_before_it_counts(
    tmp_path: Path, file: str, text: str | None, said: str
) -> None:
    before, newest = _saved(tmp_path, 1), _saved(tmp_path, 2)
    (newest / file).unlink() if text is None else (newest / file).write_text(text)
    heard: list[str] = []
    assert checkpoints.newest(tmp_path, heard.append) == before
    (message,) = heard
    assert re.match(f"checkpoint-2 is damaged and skipped: {said}", message)
    assert _found(tmp_path) == ["checkpoint-1"]


def test_without_any_training_begins_at_the_start(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path / "none", pytest.fail) is None
