"""What this machine answers."""

import os
from pathlib import Path

from orchestrator.clusters import storage
from orchestrator.clusters.probe import Asked, NodeReport, environments, report
from orchestrator.environments.folder import Folder, Mark


def test_a_node_answers_in_plain_data(tmp_path: Path) -> None:
    mark = storage.leave_mark(str(tmp_path))
    found = report(Asked(home=str(tmp_path), home_mark=mark))
    assert found == NodeReport.model_validate_json(found.model_dump_json())
    assert found.cpus == os.cpu_count()
    assert found.sees_home
    assert found.storage_problem is None
    assert found.home_free_bytes
    assert found.versions["ray"]


def test_another_folder_of_the_same_name_is_told_from_the_callers(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    found = report(
        Asked(home=str(tmp_path), home_mark=".orch-1", storage=str(tmp_path / "shared"), storage_mark=".orch-2")
    )
    assert not found.sees_home
    assert found.storage_problem == (
        f"the storage {tmp_path}/shared is another one here: what was written elsewhere is not in it"
    )


def test_a_home_that_is_not_there_is_unknown_and_not_an_error(tmp_path: Path) -> None:
    found = report(Asked(home=str(tmp_path / "none"), home_mark="x", storage=str(tmp_path / "none")))
    assert (found.sees_home, found.home_free_bytes, found.environments) == (False, None, [])
    assert found.storage_problem == f"the storage {tmp_path}/none is no folder on this node"


def test_only_environments_that_are_complete_are_told(tmp_path: Path) -> None:
    for version in ("0.31.0", "0.32.0"):
        (tmp_path / "engines" / f"vllm-{version}-cuda").mkdir(parents=True)
    mark = Mark(name="vllm", version="0.32.0", kind="cuda", recipe="x", bytes=1, seconds=1)
    Folder(tmp_path / "engines" / "vllm-0.32.0-cuda").complete(mark)
    assert environments(tmp_path) == ["vllm 0.32.0 (cuda)"]
