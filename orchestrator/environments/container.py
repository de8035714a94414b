"""Commands inside a container image: the flags that docker and podman need for an engine.

NVIDIA: https://nvidia.github.io/TensorRT-LLM/installation and, for podman, the container toolkit's CDI names. AMD: the
flags that vLLM documents for its ROCm images. The network is the host's, so that a server that listens on loopback is
reached there and nowhere else.
"""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, Self

from orchestrator.config import Model
from orchestrator.digests import digest_value
from orchestrator.environments import steps
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
"""All devices of the machine: which of them a command uses is said by variables, as without a container."""


class Container(Model):
    """How commands run inside one image."""

    runtime: Runtime
    image: str
    kind: Literal["cpu", "cuda", "rocm"]
    home: Path
    """$ORCH_HOME: the same path inside, so that paths mean the same; exports are written there."""
    name: str | None = None
    """Of the container, by which it is removed."""
    reads: tuple[Path, ...] = ()
    """More files and folders that are seen inside, which nothing there can change."""
    variables: tuple[str, ...] = ("PYTHONPATH",)
    """Environment variables that are taken over where they are set: workers find orch's package by the first."""

    def serving(self, alias: str, directory: Path, *, reads: Iterable[Path], variables: Iterable[str]) -> Self:
        """The same for one server. No two servers have an alias and a directory in common; its next start has both."""
        name = f"orch-{re.sub('[^a-zA-Z0-9_.-]', '-', alias)}-{digest_value(str(directory))[:8]}"
        more = {"reads": (*self.reads, directory, *reads), "variables": (*self.variables, *variables)}
        return self.model_copy(update={"name": name, **more})

    def prefix(self) -> tuple[str, ...]:
        """The start of a command line; program and arguments follow. The image's own entry point is left out."""
        named = ("--name", self.name) if self.name else ()
        volumes = [f"{self.home}:{self.home}", *(f"{path}:{path}:ro" for path in dict.fromkeys(self.reads))]
        return (
            *(self.runtime, "run", *named, *_ALWAYS, *_DEVICES.get((self.runtime, self.kind), ())),
            *(part for volume in volumes for part in ("--volume", volume)),
            *(part for variable in self.variables for part in ("--env", variable)),
            *("--entrypoint", "", self.image),
        )

    def removal(self) -> tuple[str, ...]:
        """The command that ends the container, in whatever state it is: it outlives the client that started it."""
        return (self.runtime, "rm", "--force", self.name) if self.name else ()

    def pull(self, say: Callable[[str], None], log: Path) -> None:
        """Get the image if this machine has not got it. Raises InfrastructureError when that fails."""
        look = [self.runtime, "image", "inspect", self.image]
        if subprocess.run(look, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
            say(f"pulling {self.image}, which may be tens of gigabytes")
            steps.run([self.runtime, "pull", self.image], what=f"pulling {self.image}", log=log)


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
