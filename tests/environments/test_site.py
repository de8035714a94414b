"""Environments as they are found and made, with a real pip and tiny wheels."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from orchestrator.environments.environment import OWN
from orchestrator.environments.site import Site
from orchestrator.errors import InfrastructureError, InputError, NotAllowedError
from tests.environments import wheels
from tests.environments.conftest import PARTIAL, TINY


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_without_an_environment_it_is_the_interpreter_that_runs_orch(site):
    assert site.ensure(None) is OWN
    assert OWN.python == [sys.executable]


def test_a_missing_environment_is_installed_and_then_found(site, said):
    made = site.ensure(TINY)
    assert made.where == "environment"
    assert made.folder == site.home / "engines" / "tiny-1.0-cpu"
    answer = subprocess.run([*made.program("tiny-engine"), "--version"], capture_output=True, text=True)
    assert answer.stdout == "tiny-engine version 1.0\n"
    spoken = len(said)
    assert site.ensure(TINY) == made
    assert len(said) == spoken


def test_an_environment_that_leaves_something_out_pins_the_rest_and_answers_to_its_other_name(site, index):
    made = site.ensure(PARTIAL)
    lines = site.folder(PARTIAL).lock.read_text().splitlines()
    assert [line.split(" ")[0] for line in lines] == ["partial-engine==1.0", "tiny-tokens==0.5", "tiny-torch==2.13"]
    assert all("--hash=sha256:" in line for line in lines)
    again = [sys.executable, "-m", "pip", "download", "-q", "--require-hashes", "-r", site.folder(PARTIAL).lock]
    assert subprocess.run([*again, "--no-deps", "-d", index / "again"]).returncode == 0
    ask = "from importlib.metadata import version; import partial_engine; print(version('partial'))"
    assert subprocess.run([*made.python, "-c", ask], capture_output=True, text=True).stdout == "1.0+cpu\n"


def test_another_version_lies_beside_it(site, index):
    wheels.write(index, "tiny-engine", "1.1")
    assert site.ensure(TINY.at("1.1")).folder == site.home / "engines" / "tiny-1.1-cpu"
    assert site.find(TINY) is None
    asked = Site(site.home, versions={"tiny": "1.1"})
    assert asked.ensure(TINY) == asked.find(TINY) == site.find(TINY.at("1.1"))


def test_half_an_installation_is_not_found_and_is_made_again(site, index):
    wheels.write(index, "tiny-engine", code="raise ImportError('no kernels')\n")
    with pytest.raises(InfrastructureError, match=r"(?s)importing tiny_engine.*no kernels"):
        site.ensure(TINY)
    assert site.folder(TINY).python.exists()
    assert site.folder(TINY).state(TINY, "cpu") == "incomplete"
    assert site.find(TINY) is None
    wheels.write(index, "tiny-engine")
    assert site.ensure(TINY).folder


def test_a_mark_that_says_nothing_does_not_count(site):
    site.folder(TINY).path.mkdir(parents=True)
    (site.folder(TINY).path / "complete.json").write_text('{"name": "ti')
    assert site.find(TINY) is None


def test_one_of_another_recipe_is_used_and_said_and_made_again_when_asked(site, said):
    site.install(TINY)
    more = TINY.kinds["cpu"].model_copy(update={"requirements": ("tiny-engine", "tiny-tokens")})
    changed = TINY.model_copy(update={"kinds": {"cpu": more}})
    assert site.ensure(changed).where == "environment"
    assert "`orch engines install tiny` makes it again" in said[-1]
    site.install(changed)
    assert site.folder(changed).state(changed, "cpu") == "complete"


def test_whoever_asks_at_the_same_time_waits_for_the_one_installation(site):
    said: list[list[str]] = [[], []]
    made: list[object] = []
    asking = [
        threading.Thread(target=lambda say=say: made.append(Site(site.home, say=say.append).ensure(TINY)))  # type: ignore[misc]
        for say in said
    ]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    assert made[0] == made[1]
    assert sum(line.startswith("installing") for line in said[0] + said[1]) == 1


def test_without_a_network_the_error_says_what_pip_could_not_reach(site, monkeypatch):
    for name, value in {"NO_INDEX": "0", "FIND_LINKS": "", "INDEX_URL": "http://127.0.0.1:9/", "RETRIES": "1"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    with pytest.raises(InfrastructureError, match=r"(?s)index cannot be reached.*pip config list") as caught:
        site.ensure(TINY)
    assert caught.value.exit_code == 5
    assert site.find(TINY) is None


def test_what_the_index_does_not_have_is_named(site, index):
    with pytest.raises(InfrastructureError, match=r"(?s)index does not have it.*tiny-engine==9.9"):
        site.ensure(TINY.at("9.9"))


def test_a_disk_that_is_too_small_is_said_before_anything_is_installed(site):
    recipe = TINY.kinds["cpu"].model_copy(update={"size_bytes": 10**18})
    with pytest.raises(InputError, match=r"takes about 1000 PB"):
        site.ensure(TINY.model_copy(update={"kinds": {"cpu": recipe}}))
    assert not site.folder(TINY).path.exists()


@pytest.mark.parametrize(
    ("kind", "message"), [("rocm", "no build for it"), ("cuda", r"images: \{tiny: example/tiny:1.0\}")]
)
def test_a_kind_without_a_recipe_is_refused_with_the_reason(site, kind, message):
    with pytest.raises(NotAllowedError, match=f"(?s)tiny 1.0 cannot be installed for {kind}.*{message}"):
        Site(site.home, kind).ensure(TINY)


def test_a_program_on_path_is_used_where_nothing_is_installed(site, tmp_path, monkeypatch):
    found = program(tmp_path / "usr" / "bin" / "tiny-engine", "echo INFO 2 devices; echo tiny version: 0.9.1-dev")
    monkeypatch.setenv("PATH", f"{found.parent}:{os.environ['PATH']}")
    installed = site.ensure(TINY)
    assert (installed.where, installed.version) == ("path", "0.9.1-dev")
    assert installed.program("tiny-engine") == [str(found)]
    site.install(TINY)
    assert site.ensure(TINY).where == "environment"


def test_a_program_on_path_that_cannot_be_started_does_not_count(site, tmp_path, monkeypatch):
    found = program(tmp_path / "usr" / "bin" / "tiny-engine", "echo 'shim: not installed'; exit 127")
    monkeypatch.setenv("PATH", f"{found.parent}:{os.environ['PATH']}")
    assert site.ensure(TINY).where == "environment"


def test_an_image_of_the_cluster_file_comes_first(site, tmp_path, monkeypatch):
    site.install(TINY)
    monkeypatch.setenv("PATH", str(program(tmp_path / "bin" / "podman", "exit 0").parent))
    found = Site(site.home, images={"tiny": "example/tiny:1.2"}).find(TINY)
    assert found
    assert (found.where, found.version, found.prefix[:2]) == ("container", "1.2", ("podman", "run"))


def test_an_image_without_docker_and_podman_is_one_clear_error(site, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InfrastructureError, match=r"(?s)example/tiny:1.2, and neither docker nor podman.*`images`"):
        Site(site.home, images={"tiny": "example/tiny:1.2"}).find(TINY)


def test_removing_leaves_nothing(site):
    site.install(TINY)
    assert site.remove(TINY)
    assert not site.folder(TINY).path.exists()
    assert not site.remove(TINY)
