"""Which attempt may write into a folder."""

from pathlib import Path

import pytest

from orchestrator import fencing
from orchestrator.errors import StaleClaimError
from orchestrator.fencing import Writer


def _writer(folder: Path, fence: int, run: str = "r1") -> Writer:
    return Writer(folder=folder, run=run, fence=fence)


def test_the_newest_attempt_writes_and_an_older_one_that_wakes_up_does_not(tmp_path: Path) -> None:
    old, new = _writer(tmp_path, 1), _writer(tmp_path, 2)
    old.begin()
    made = tmp_path / "partial"
    made.write_text("old")
    new.begin()
    with pytest.raises(StaleClaimError, match=r"attempt 1 of r1 may not write into .*: attempt 2 of r1 has begun"):
        fencing.publish(made, tmp_path / "result", old)
    assert not (tmp_path / "result").exists()
    fencing.publish(made, tmp_path / "result", new)
    assert (tmp_path / "result").read_text() == "old"


def test_an_attempt_that_begins_too_late_is_refused(tmp_path: Path) -> None:
    _writer(tmp_path, 2).begin()
    with pytest.raises(StaleClaimError):
        _writer(tmp_path, 1).begin()
    _writer(tmp_path, 2).begin()  # its worker is started again


def test_another_run_with_the_same_stage_counts_for_itself(tmp_path: Path) -> None:
    first, other = _writer(tmp_path, 5), _writer(tmp_path, 1, "r2")
    first.begin()
    other.relieve()
    first.check()
    other.begin()
    with pytest.raises(StaleClaimError, match="attempt 1 of r2 has begun"):
        first.check()


def test_an_older_attempt_of_the_same_run_is_relieved(tmp_path: Path) -> None:
    first, second = _writer(tmp_path, 1), _writer(tmp_path, 2)
    second.relieve()
    assert fencing.holder(tmp_path) is None
    first.begin()
    second.relieve()
    with pytest.raises(StaleClaimError):
        first.check()


def test_a_folder_takes_the_place_of_the_one_that_had_its_name(tmp_path: Path) -> None:
    for text in ("one", "two"):
        (tmp_path / "partial").mkdir()
        (tmp_path / "partial" / text).write_text(text)
        fencing.publish(tmp_path / "partial", tmp_path / "model", None)
    assert [file.name for file in (tmp_path / "model").iterdir()] == ["two"]


def test_attempts_that_nobody_counts_are_counted_by_the_folder(tmp_path: Path) -> None:
    assert fencing.next_fence(tmp_path, "r1") == 1
    _writer(tmp_path, 4).begin()
    assert fencing.next_fence(tmp_path, "r1") == 5
    assert fencing.next_fence(tmp_path, "r2") == 1
