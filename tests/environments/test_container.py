"""Commands in containers: the flags as values, and a docker that is a script, as no real one runs in the tests."""

import itertools
import os
from pathlib import Path

import pytest

from orchestrator import processes
from orchestrator.environments.container import Container
from orchestrator.environments.environment import Environment
from orchestrator.environments.site import PACKAGE, Site
from orchestrator.errors import InfrastructureError
from tests.environments.test_site import program

TRT = Environment(
    name="tensorrt_llm", version="1.2.1", images={"cuda": "nvcr.io/nvidia/tensorrt-llm/release:{version}"}
)
IMAGE = "nvcr.io/nvidia/tensorrt-llm/release:1.2.1"
HOME = Path("/home/me/.orch")


def container(kind="cuda", runtime="docker") -> Container:
    return Container(runtime=runtime, image=IMAGE, kind=kind, home=HOME)


def pairs(prefix: tuple[str, ...]) -> set[tuple[str, str]]:
    return set(itertools.pairwise(prefix))


def test_nvidia_by_docker():
    assert container().prefix() == (
        *("docker", "run", "--rm", "--init", "--network", "host", "--ipc", "host", "--gpus", "all"),
        *("--ulimit", "memlock=-1", "--ulimit", "stack=67108864", "--volume", f"{HOME}:{HOME}"),
        *("--env", "PYTHONPATH", "--entrypoint", "", IMAGE),
    )


def test_nvidia_by_podman():
    assert ("--device", "nvidia.com/gpu=all") in pairs(container(runtime="podman").prefix())


@pytest.mark.parametrize("runtime", ["docker", "podman"])
def test_amd(runtime):
    found = pairs(container("rocm", runtime).prefix())
    assert {("--device", "/dev/kfd"), ("--device", "/dev/dri"), ("--group-add", "video"), ("--ipc", "host")} <= found
    assert ("--security-opt", "seccomp=unconfined") in found
    assert "--gpus" not in container("rocm", runtime).prefix()


def test_a_server_has_a_name_of_its_own_and_reads_its_model_without_changing_it():
    export = HOME / "stages" / "export-1" / "fp8"
    one = container().serving("legal@3", HOME / "logs", reads=[export, export], variables=["HIP_VISIBLE_DEVICES"])
    found = pairs(one.prefix())
    assert {("--env", "HIP_VISIBLE_DEVICES"), ("--volume", f"{export}:{export}:ro")} <= found
    assert one.prefix().count(f"{export}:{export}:ro") == 1
    assert one.name
    assert one.name.startswith("orch-legal-3-")
    assert one.removal() == ("docker", "rm", "--force", one.name)
    again = container().serving("legal@3", HOME / "logs", reads=[], variables=[])
    elsewhere = container().serving("legal@3", HOME / "other", reads=[], variables=[])
    assert one.name == again.name != elsewhere.name


def fake(folder: Path, *, has_image: bool = True) -> Path:
    """A docker that writes down what it is asked, and runs the command of `run` here."""
    script = f'echo "$@" >> {folder}/asked\n'
    script += (
        f'case "$1" in image) exit {int(not has_image)};; pull) echo "Cannot connect to the daemon"; exit 1;; esac\n'
    )
    return program(
        folder / "bin" / "docker",
        script + 'while [ $# -gt 0 ]; do [ "$1" = "$IMAGE" ] && shift && exec "$@"; shift; done',
    )


@pytest.fixture
def site(tmp_path, monkeypatch) -> Site:
    monkeypatch.setenv("PATH", f"{fake(tmp_path).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("IMAGE", IMAGE)
    return Site(tmp_path / "home", "cuda", images={"tensorrt_llm": IMAGE})


def test_a_site_finds_the_image_with_what_workers_import(site):
    found = site.ensure(TRT)
    assert (found.where, found.version) == ("container", "1.2.1")
    assert found.program("trtllm-serve")[-3:] == ["", IMAGE, "trtllm-serve"]
    assert found.python[-1] == "python3"
    assert ("--volume", f"{PACKAGE}:{PACKAGE}:ro") in pairs(found.prefix)
    where = TRT.model_copy(update={"programs_in_image": "/app"})
    assert site.ensure(where).program("llama-server")[-1] == "/app/llama-server"


def test_an_image_that_cannot_be_pulled_is_told_in_the_words_of_docker(site, tmp_path):
    fake(tmp_path, has_image=False)
    with pytest.raises(InfrastructureError, match=r"(?s)pulling nvcr.io.*Cannot connect to the daemon"):
        site.ensure(TRT)


def test_the_container_is_removed_before_and_after_whatever_ends_its_client(site, tmp_path):
    inside = site.ensure(TRT).serving("legal@3", tmp_path, reads=[], variables=[])
    assert inside.container
    line = [*inside.program("sh"), "-c", "echo ready; trap '' TERM; sleep 60 & wait; wait"]
    process = processes.start(line, log=tmp_path / "log", grace_s=0.1, cleanup=inside.removal)
    while "ready" not in process.last_lines():
        assert process.poll() is None
    process.stop()
    asked = [line.split(" ")[0] for line in (tmp_path / "asked").read_text().splitlines()]
    assert asked == ["image", "rm", "run", "rm"]
    assert f"rm --force {inside.container.name}" in (tmp_path / "asked").read_text()
