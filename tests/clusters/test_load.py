"""Where a cluster comes from: a path, the name of a file, or this machine."""

from pathlib import Path

import pytest

from orchestrator.clusters.load import files, load_cluster
from orchestrator.errors import InputError


def _write(folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(f"name: {name}-of-{folder.parent.name}\nnodes: [{{cpus: 4}}]\n")


def test_a_name_is_looked_for_in_the_current_folder_and_then_in_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, home = tmp_path / "here", tmp_path / "home"
    for folder in (here, home):
        folder.mkdir()
    _write(here / "clusters", "lab")
    _write(home / "clusters", "lab")
    _write(home / "clusters", "big")
    monkeypatch.chdir(here)
    assert load_cluster(Path("lab"), home).name == "lab-of-here"
    assert load_cluster(Path("big"), home).name == "big-of-home"
    assert [path.stem for path in files(home)] == ["lab", "big"]


def test_a_name_of_no_cluster_is_an_error_with_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / "clusters", "h100x8")
    with pytest.raises(InputError, match=r"no cluster 'h100x9'; did you mean 'h100x8'\? \(known: h100x8, local\)"):
        load_cluster(Path("h100x9"), tmp_path)


def test_local_needs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_cluster(Path("local"), tmp_path).address == "local"
