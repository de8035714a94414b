"""Where models and data sets come from: paths, hub ids and commands."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.environments.site import Site
from orchestrator.stages import prepare
from orchestrator.stages.base import Context
from orchestrator.stages.prepare import Config, Dataset, Source


def _context(folder: Path, asked: list[Mapping[str, Any]]) -> Context:
    def worker(name: str, request: Mapping[str, Any]) -> dict[str, Any]:
        asked.append(request)
        return {"path": "/downloaded"}

    return Context(
        home=folder,
        run="r1",
        digest="d",
        cwd=folder,
        directory=folder,
        inputs={},
        emit=lambda kind, /, **data: None,
        worker=worker,
        site=Site(folder),
    )


def test_the_models_revision_is_not_that_of_a_data_set(tmp_path: Path) -> None:
    asked: list[Mapping[str, Any]] = []
    config = Config(base_model=Source(path="org/model"), revision="abc", datasets=[Dataset(path="org/rows")])
    prepare.run(config, _context(tmp_path, asked))
    assert [(request["kind"], request["revision"]) for request in asked] == [("dataset", None), ("model", "abc")]


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "m").mkdir()
    source = Source(path="~/m")
    prepare.check_exists(source, Path("/"), "base_model")
    assert "content" in prepare.identity(source, Path("/"))
    found = prepare.run(Config(base_model=source), _context(tmp_path / "m", []))
    assert found.artifacts["base_model"] == str(tmp_path / "m")


def test_a_command_that_cannot_be_split_is_refused() -> None:
    with pytest.raises(ValidationError, match="cannot be split into words: No closing quotation"):
        Source(prepare="python 'x.py --out {out}")


def test_a_command_is_the_same_in_another_clone(tmp_path: Path) -> None:
    source = Source(prepare="python x.py --out {out}")
    found = []
    for clone in (tmp_path / "a", tmp_path / "b"):
        clone.mkdir()
        (clone / "x.py").write_text("pass")
        found.append(prepare.identity(source, clone))
    assert found[0] == found[1]
    (tmp_path / "b" / "x.py").write_text("changed")
    assert prepare.identity(source, tmp_path / "b") != found[0]
