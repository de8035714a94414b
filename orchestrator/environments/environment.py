"""What an engine or a quantizer needs to be installed, as values; `site.py` finds and makes it on a node.

VLLM = Environment(name="vllm", version="0.32.0", kinds={"cuda": Pip(requirements=("vllm=={version}",), ...)}, ...)
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

from orchestrator import gpus
from orchestrator.config import Model
from orchestrator.environments.container import Container

Kind = Literal["cpu", "cuda", "rocm"]
"""What an environment computes on."""
KINDS: tuple[Kind, ...] = ("cpu", "cuda", "rocm")


class Pip(Model):
    """A virtual environment that pip fills."""

    requirements: tuple[str, ...]
    """As pip takes them; `{version}` stands for the environment's version."""
    first: tuple[str, ...] = ()
    """Installed before, so that the others take these builds."""
    left_out: tuple[str, ...] = ()
    """Distributions that `requirements` ask for and that are not needed."""
    pythons: tuple[str, ...] = ()
    """Versions of Python that there are wheels for, such as 3.12, the best first; empty: that of orch will do."""
    known_as: str | None = None
    """The distribution name and version that its code asks for, such as `vllm=={version}+cpu`, where its own differ."""
    size_bytes: int
    """On disk, about."""


class Build(Model):
    """Programs that cmake builds from a pinned source archive of the package index."""

    archive: str
    """The requirement that holds the source, such as llama-cpp-python==0.3.36."""
    sha256: str
    """Of the archive."""
    tree: str
    """Folder of the sources inside the archive."""
    options: tuple[str, ...] = ()
    """Of cmake, such as -DGGML_CUDA=ON."""
    targets: tuple[str, ...]
    """Programs that are built; they end up in the environment's `bin`. None: nothing is compiled."""
    kept: tuple[str, ...] = ()
    """Files and folders of the source that are kept in the environment, at the same paths."""
    size_bytes: int
    """On disk, about; while it is built, the sources and the objects come on top."""


class Environment(Model):
    """One engine or quantizer, at one version."""

    name: str
    """As in `orch engines install NAME`."""
    version: str
    """The pinned one; others can be asked for."""
    purpose: str = ""
    """In a few words, for `orch engines list`."""
    program: str | None = None
    """A program that is looked for on PATH where nothing is installed."""
    check: str | None = None
    """Module that must be importable in a complete virtual environment."""
    kinds: dict[Kind, Pip | Build] = {}
    """How it is made, by what it computes on; a kind that is not here cannot be had."""
    images: dict[Kind, str] = {}
    """Published container images; `{version}` stands for the version."""
    programs_in_image: str | None = None
    """Folder of its programs in the images, where it is not on their PATH."""
    refusals: dict[Kind, str] = {}
    """Why there is none for a kind."""

    def at(self, version: str) -> Self:
        """The same at another version, which nobody has tried."""
        return self.model_copy(update={"version": version})

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


class Installed(Model):
    """An environment that is there and can be used."""

    name: str
    version: str
    """`unknown` where a program on PATH does not say it."""
    where: Literal["environment", "container", "path", "own"]
    """A folder of its own, a container image, a program on PATH, or the interpreter that runs orch."""
    folder: Path | None = None
    """Of the environment; of a container, the folder inside it that holds the programs; of a program on PATH, the one
    that its `bin` is in."""
    container: Container | None = None
    """What runs commands inside the container."""

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip()

    @property
    def prefix(self) -> tuple[str, ...]:
        """What a command inside the container begins with; nothing elsewhere."""
        return self.container.prefix() if self.container else ()

    def program(self, name: str) -> list[str]:
        """The start of a command line that runs this program of the environment."""
        if self.container:
            return [*self.prefix, str(self.folder / name) if self.folder else name]
        inside = self.folder / "bin" / name if self.folder else None
        return [str(inside) if inside and inside.exists() else name]

    @property
    def python(self) -> list[str]:
        """The start of a command line that runs its Python."""
        if self.container:
            return [*self.prefix, "python3"]
        return [sys.executable] if self.where == "own" else self.program("python")

    def serving(self, alias: str, directory: Path, *, reads: Iterable[Path], variables: Iterable[str]) -> Self:
        """For one server: a container gets a name, sees what is read, and takes over these variables."""
        if self.container is None:
            return self
        inside = self.container.serving(alias, directory, reads=reads, variables=variables)
        return self.model_copy(update={"container": inside})

    @property
    def removal(self) -> tuple[str, ...]:
        """The command that ends what would outlive its process: a container."""
        return self.container.removal() if self.container else ()


OWN = Installed(name="orch", version="", where="own")
"""The interpreter that runs orch, for what needs no environment of its own."""


def kind_of(accelerator: str | None) -> Kind:
    """What an environment for this kind of accelerator computes on; None is the CPU."""
    if accelerator is None:
        return "cpu"
    return "rocm" if gpus.is_amd(accelerator) else "cuda"


def here() -> Kind:
    """What an environment for this machine computes on."""
    found = gpus.probe()
    return kind_of(gpus.kind(found[0]["name"], found[0]["memory_bytes"]) if found else None)
