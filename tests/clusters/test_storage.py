"""Shared storage: what can be told from its URI, and whether this node may write there."""

import importlib.util
from pathlib import Path

import pytest

from orchestrator.clusters import storage
from orchestrator.errors import InputError


def test_a_folder_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    storage.check_writable(str(tmp_path))
    storage.check_writable(f"file://{tmp_path}")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder on this node") as caught:
        storage.check_writable(f"{tmp_path}/shared")
    assert caught.value.next_step == "make it, or mount the shared disk"
    assert not list(tmp_path.iterdir())


def test_a_storage_that_may_not_be_written_is_named_with_the_systems_words() -> None:
    with pytest.raises(InputError, match=r"cannot write to the storage /proc/self: .*No such file") as caught:
        storage.check_writable("/proc/self")  # that no user may write to, whoever runs this
    assert caught.value.next_step == "is the URI right, and may you write there?"


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs"), ("az", "adlfs")])
def test_a_driver_that_is_missing_is_named_with_how_to_install_it(scheme: str, package: str) -> None:
    there = importlib.util.find_spec(package) is not None
    missing = f"{scheme}:// needs its driver on every node: `pip install {package}`"
    assert storage.problem(f"{scheme}://bucket/orch") == (None if there else missing)


def test_a_mark_is_seen_while_it_is_there(tmp_path: Path) -> None:
    mark = storage.leave_mark(str(tmp_path))
    assert storage.has_mark(str(tmp_path), mark)
    storage.remove_mark(str(tmp_path), mark)
    assert not storage.has_mark(str(tmp_path), mark)
    assert not list(tmp_path.iterdir())
