"""Commands inside a container image: the flags that docker and podman need for an engine.

NVIDIA: https://nvidia.github.io/TensorRT-LLM/installation and the container toolkit's CDI names for podman; AMD: the
flags of https://docs.vllm.ai for `rocm/vllm`. The network is the host's, so that a server that listens on loopback is
reached there and nowhere else.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

from orchestrator.config import Model
from orchestrator.errors import InfrastructureError

Runtime = Literal["docker", "podman"]
_ALWAYS = ("--rm", "--init", "--network", "host", "--ipc", "host")
"""`--init` is what hands SIGTERM on to the command: a process with id 1 would ignore it."""
_UNLIMITED = ("--ulimit", "memlock=-1", "--ulimit", "stack=67108864")
_AMD = (
    *("--device", "/dev/kfd", "--device", "/dev/dri", "--group-add", "video"),
    *("--security-opt", "seccomp=unconfined"),
)
_DEVICES: dict[tuple[Runtime, str], tuple[str, ...]] = {
    ("docker", "cuda"): ("--gpus", "all", *_UNLIMITED),
    ("podman", "cuda"): ("--device", "nvidia.com/gpu=all", *_UNLIMITED),
    ("docker", "rocm"): _AMD,
    ("podman", "rocm"): _AMD,
}


class Container(Model):
    """How commands run inside one image."""

    runtime: Runtime
    image: str
    kind: Literal["cpu", "cuda", "rocm"]
    home: Path
    """$ORCH_HOME: the same path inside, so that paths mean the same; exports are written there."""
    name: str | None = None
    """Of the container, by which it is stopped."""
    reads: tuple[Path, ...] = ()
    """More files and folders that are seen inside, which nothing there can change."""
    variables: tuple[str, ...] = ("PYTHONPATH",)
    """Environment variables that are taken over where they are set: workers find orch's package by the first."""

    def serving(self, name: str, reads: Iterable[Path], variables: Iterable[str]) -> Self:
        """The same for one server."""
        more = {"reads": (*self.reads, *reads), "variables": (*self.variables, *variables), "name": name}
        return self.model_copy(update=more)

    def prefix(self) -> tuple[str, ...]:
        """The start of a command line; program and arguments follow. The image's own entry point is left out."""
        named = ("--name", self.name) if self.name else ()
        volumes = [f"{self.home}:{self.home}", *(f"{path}:{path}:ro" for path in self.reads)]
        return (
            *(self.runtime, "run", *named, *_ALWAYS, *_DEVICES.get((self.runtime, self.kind), ())),
            *(part for volume in volumes for part in ("--volume", volume)),
            *(part for variable in self.variables for part in ("--env", variable)),
            *("--entrypoint", "", self.image),
        )


def runtime(image: str) -> Runtime:
    """docker, else podman. Raises InfrastructureError where neither is on PATH."""
    if shutil.which("docker"):
        return "docker"
    if shutil.which("podman"):
        return "podman"
    raise InfrastructureError(
        f"the cluster file names the image {image}, and neither docker nor podman is on PATH",
        next_step="install one of them, or take the name out of `images`: then an environment of its own is installed",
    )
