"""orch engines, with an engine's file of the test's own and tiny wheels."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.store.store import Store
from tests.cli.conftest import ROOT, Orch
from tests.environments import wheels

ENGINE = """
from orchestrator.environments.environment import Environment, Pip

TINY = Environment(
    name="tiny", version="1.0", purpose="serves tiny models", program="tiny-engine", check="tiny_engine",
    kinds={"cpu": Pip(requirements=("tiny-engine=={version}",), size_bytes=20_000_000)},
    images={"cuda": "example/tiny:{version}"}, refusals={"cuda": "only its image has the libraries"},
)
ENVIRONMENTS = (TINY,)
"""
STARTED = "import sys; from orchestrator import engines; engines.__path__.append(sys.argv.pop(1)); "


@pytest.fixture
def orch(tmp_path: Path) -> Orch:
    """`orch` with one more engine: a file in a folder that is added to those of the package."""
    plugins, index, home = tmp_path / "engines", tmp_path / "index", tmp_path / "home"
    plugins.mkdir()
    (plugins / "tiny.py").write_text(ENGINE)
    wheels.write(index, "tiny-engine")
    environment = {**os.environ, "ORCH_HOME": str(home), "PYTHONPATH": str(ROOT), **wheels.only(index)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = STARTED + "from orchestrator.cli.main import main; main()"
        command = [sys.executable, "-c", code, str(plugins), "engines", *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)

    return run


def row(orch: Orch, *arguments: str) -> dict[str, object]:
    rows = json.loads(orch("list", "--json", *arguments).stdout)
    return next(one for one in rows if one["name"] == "tiny")


def test_an_environment_from_its_first_sight_to_its_end(orch: Orch, tmp_path: Path) -> None:
    assert row(orch)["state"] == "missing"
    assert orch("install").returncode == 2
    made = orch("install", "tiny")
    assert made.returncode == 0, made.stderr
    assert "installing tiny 1.0 (cpu, about 20 MB)" in made.stdout
    found, place = row(orch), str(tmp_path / "home" / "engines" / "tiny-1.0-cpu")
    assert (found["state"], found["place"], found["used_by"]) == ("complete", place, [])
    assert isinstance(found["bytes"], int)
    assert "serves tiny models" in orch("list").stdout
    assert "ok     tiny-engine: 1.0" in orch("doctor").stdout
    assert orch("remove", "tiny").stdout == "tiny 1.0 is removed\n"
    assert row(orch)["state"] == "missing"
    again = orch("remove", "tiny")
    assert (again.returncode, "not installed" in again.stderr) == (2, True)


def test_half_an_installation_is_told_and_repaired(orch: Orch, tmp_path: Path) -> None:
    (tmp_path / "home" / "engines" / "tiny-1.0-cpu").mkdir(parents=True)
    assert row(orch)["state"] == "incomplete"
    told = orch("doctor")
    assert told.returncode == 5
    assert "failed complete: half-installed" in told.stdout
    assert "next: `orch engines install tiny==1.0 --kind cpu`" in told.stderr
    assert orch("install", "tiny").returncode == 0
    assert orch("doctor", "tiny").returncode == 0


def test_one_that_a_release_runs_from_is_not_removed(orch: Orch, tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    spec = {"engine": "tiny", "engine_version": "tiny 1.0", "kind": "cpu", "images": {}, "port": 1}
    release = store.get_or_create_release("legal", "digest", "run", spec)
    store.move_release(release, "starting")
    assert row(orch)["used_by"] == ["legal@1"]
    refused = orch("remove", "tiny")
    assert refused.returncode == 2
    assert "in use by legal@1" in refused.stderr
    assert "orch serve down legal" in refused.stderr


def test_bad_input_is_one_clear_error(orch: Orch) -> None:
    unknown = orch("install", "tinny")
    assert (unknown.returncode, "did you mean 'tiny'?" in unknown.stderr) == (2, True)
    assert "write it like tiny==1.0" in orch("install", "tiny==").stderr
    refused = orch("install", "tiny", "--kind", "cuda")
    assert refused.returncode == 3
    assert "only its image has the libraries" in refused.stderr
    assert "images: {tiny: example/tiny:1.0}" in refused.stderr
    assert row(orch, "--kind", "cuda")["state"] == "refused"
    missing = orch("install", "tiny==2.0")
    assert missing.returncode == 5
    assert "the package index does not have it" in missing.stderr
    assert [one["version"] for one in json.loads(orch("list", "--json").stdout) if one["name"] == "tiny"] == [
        "1.0",
        "2.0",
    ]
    assert orch("doctor", "tiny").returncode == 5
