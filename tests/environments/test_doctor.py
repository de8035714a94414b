"""What the doctor finds in environments that were complete once."""

import shutil
from pathlib import Path

import pytest

from orchestrator.environments import doctor, on_path
from orchestrator.environments.site import Site
from tests.environments.conftest import PARTIAL, TINY
from tests.environments.wheels import write


def failed(site: Site, environment=TINY) -> dict[str, str]:
    findings = doctor.examine(environment, "cpu", site.folder(environment))
    return {finding.what: finding.found for finding in findings if not finding.ok}


def test_a_fresh_environment_is_well(site):
    site.install(PARTIAL)
    findings = doctor.examine(PARTIAL, "cpu", site.folder(PARTIAL))
    assert [finding.what for finding in findings] == ["complete", "python", "versions", "import partial_engine"]
    assert all(finding.ok for finding in findings)
    assert "3 distributions as locked" in [finding.found for finding in findings]


def test_what_is_missing_or_half_there_is_looked_at_no_further(site):
    assert failed(site) == {"complete": "not installed"}
    site.folder(TINY).path.mkdir(parents=True)
    assert failed(site) == {"complete": "half-installed: it is not used"}


def test_every_damage_has_its_own_finding(site, index):
    site.install(TINY)
    folder = site.folder(TINY)
    assert failed(site) == {}
    (folder.path / "bin" / "tiny-engine").unlink()
    assert failed(site) == {"tiny-engine": f"{folder.path}/bin/tiny-engine is not there"}
    write(index, "tiny-engine", "1.1")
    shutil.move(folder.packages / "tiny_engine-1.0.dist-info", folder.packages / "tiny_engine-1.1.dist-info")
    metadata = folder.packages / "tiny_engine-1.1.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("Version: 1.0", "Version: 1.1"))
    (folder.packages / "tiny_engine.py").write_text("import no_such_module")
    found = failed(site)
    assert found["versions"] == "tiny-engine 1.1, locked 1.0"
    assert found["import tiny_engine"] == "ModuleNotFoundError: No module named 'no_such_module'"
    folder.lock.unlink()
    assert "cannot be read" in failed(site)["versions"]
    folder.python.unlink()
    assert "/bin/python" in failed(site)["python"]
    folder.python.symlink_to("/no/such/python")
    assert failed(site) == {"complete": "half-installed: it is not used"}


def test_an_environment_of_another_recipe_is_told(site):
    site.install(TINY)
    changed = TINY.model_copy(update={"check": None})
    assert "other requirements" in failed(site, changed)["complete"]


@pytest.mark.parametrize(
    ("locked", "there", "told"),
    [
        ({"a": "1"}, {"a": "1"}, []),
        ({"a": "1"}, {}, ["a missing, locked 1"]),
        ({}, {"b": "2"}, ["b 2, locked out"]),
    ],
)
def test_differences_from_the_lock(locked, there, told):
    assert doctor.differences(locked, there) == told


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("version: 0.5.0-dev (build 1, commit 0c1e570)\nbuilt with GNU 12.2.0 for Linux x86_64", "0.5.0-dev"),
        ("version: 6789 (abc)", "6789"),
        ("INFO 11-24 12:00:00 importing\n0.32.0+cpu", "0.32.0+cpu"),
        ("[TensorRT-LLM] TensorRT LLM version: 1.2.1", "1.2.1"),
        ("", None),
    ],
)
def test_the_version_in_an_answer(said, version):
    assert on_path.version((0, said)) == version


def test_a_program_that_was_built_need_only_start(tmp_path: Path):
    program = tmp_path / "llama-quantize"
    program.write_text("#!/bin/sh\necho usage; exit 1\n")
    program.chmod(0o755)
    assert doctor._program(program, must_tell=False).ok
    assert not doctor._program(program, must_tell=True).ok
    program.write_text("#!/bin/sh\nkill -ILL $$\n")
    assert not doctor._program(program, must_tell=False).ok
