"""The environments of one node: where they lie, how they are found, and how one that is missing is made.

In this order: an image that the cluster file names, the folder `$ORCH_HOME/engines/NAME-VERSION-KIND`, a program on
PATH. A folder counts only once it is complete; it is made once on a node, whoever asks first.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

import orchestrator
from orchestrator.environments import build, on_path, steps, virtualenv
from orchestrator.environments.container import Container, runtime
from orchestrator.environments.environment import OWN, Build, Environment, Installed, Kind, Pip
from orchestrator.environments.folder import Folder, Mark, recipe_digest, size
from orchestrator.errors import InputError, NotAllowedError, is_disk_full
from orchestrator.units import Bytes

PACKAGE = Path(orchestrator.__file__).parent
"""Workers in a container import it."""


@dataclass(frozen=True)
class Site:
    """Where engines and quantizers are looked for."""

    home: Path
    """$ORCH_HOME on this node."""
    kind: Kind = "cpu"
    """What they compute on."""
    images: Mapping[str, str] = field(default_factory=dict)
    """Container images by environment name, from the cluster file."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Other versions than the pinned ones, by environment name, from the cluster file."""
    say: Callable[[str], None] = print
    """Is told what is installed, which may take minutes."""

    def ensure(self, environment: Environment | None) -> Installed:
        """The environment, installed if it is missing; None is the interpreter that runs orch.

        Raises NotAllowedError where there is none for this kind of accelerator, InputError for a full disk,
        InfrastructureError when it cannot be installed.
        """
        if environment is None:
            return OWN
        found = self.find(environment)
        if found and found.container:
            found.container.pull(self.say, self.home / "engines" / f"{environment.name}.pull.log")
        return found or self.install(self.wanted(environment))

    def wanted(self, environment: Environment) -> Environment:
        """At the version that the cluster file asks for, else as it is."""
        version = self.versions.get(environment.name)
        return environment.at(version) if version else environment

    def find(self, environment: Environment | None) -> Installed | None:
        """The environment as it is here, without installing anything; None: it is missing.

        Raises InfrastructureError for an image where there is no docker or podman.
        """
        if environment is None:
            return OWN
        wanted = self.wanted(environment)
        return self._image(wanted) or self._folder(wanted) or on_path.find(wanted)

    def folder(self, environment: Environment) -> Folder:
        """Where it lies, or would lie."""
        return Folder.of(self.home, environment, self.kind)

    def install(self, environment: Environment) -> Installed:
        """Make its folder, also where a program on PATH would do; a complete one of today's recipe is kept."""
        recipe = self._recipe(environment)
        folder = self.folder(environment)
        with self._alone(environment, folder):
            if folder.state(environment, self.kind) != "complete":
                self._make(environment, recipe, folder)
        return self._installed(environment, folder)

    def remove(self, environment: Environment) -> bool:
        """Delete its folder; whether there was one."""
        folder = self.folder(environment)
        with self._alone(environment, folder):
            there = folder.path.exists()
            folder.spoil()
            shutil.rmtree(folder.path, ignore_errors=not there)
            folder.log.unlink(missing_ok=True)
        return there

    def _image(self, environment: Environment) -> Installed | None:
        image = self.images.get(environment.name)
        if image is None:
            return None
        inside = Path(environment.programs_in_image) if environment.programs_in_image else None
        reads = tuple(path for path in (PACKAGE, _hub_cache()) if path.exists())
        container = Container(runtime=runtime(image), image=image, kind=self.kind, home=self.home, reads=reads)
        version = image.rpartition(":")[2] if ":" in image else "unknown"
        return Installed(name=environment.name, version=version, where="container", folder=inside, container=container)

    def _folder(self, environment: Environment) -> Installed | None:
        folder = self.folder(environment)
        state = folder.state(environment, self.kind)
        if state == "outdated":
            again = f"`orch engines install {environment.name}` makes it again"
            self.say(f"{environment}: installed by another version of orch, with other requirements; {again}")
        return self._installed(environment, folder) if state in ("complete", "outdated") else None

    def _installed(self, environment: Environment, folder: Folder) -> Installed:
        return Installed(name=environment.name, version=environment.version, where="environment", folder=folder.path)

    def _recipe(self, environment: Environment) -> Pip | Build:
        recipe = environment.kinds.get(self.kind)
        if recipe is None:
            others = ", ".join(environment.kinds) or "none"
            why = environment.refusals.get(self.kind, f"orch installs it for: {others}")
            raise NotAllowedError(
                f"{environment} cannot be installed for {self.kind}: {why}", next_step=self._without_recipe(environment)
            )
        return recipe

    def _without_recipe(self, environment: Environment) -> str:
        image = environment.images.get(self.kind)
        if image:
            named = image.format(version=environment.version)
            return f"name its image in the cluster file: `images: {{{environment.name}: {named}}}`"
        return f"put its program on PATH: {environment.program}" if environment.program else "choose another engine"

    def _make(self, environment: Environment, recipe: Pip | Build, folder: Folder) -> None:
        _check_space(environment, recipe, folder)
        started = time.monotonic()
        self.say(f"installing {environment} ({self.kind}, about {Bytes(recipe.size_bytes)}) into {folder.path}")
        folder.spoil()
        folder.log.unlink(missing_ok=True)
        try:
            if isinstance(recipe, Pip):
                virtualenv.make(environment, recipe, folder)
            else:
                build.make(environment, recipe, folder)
        except OSError as error:
            if is_disk_full(error):
                raise steps.disk_full(f"installing {environment}") from error
            raise
        seconds = time.monotonic() - started
        mark = Mark(
            name=environment.name,
            version=environment.version,
            kind=self.kind,
            recipe=recipe_digest(environment, self.kind),
            bytes=size(folder.path),
            seconds=seconds,
        )
        folder.complete(mark)
        self.say(f"installed {environment} in {seconds:.0f} s, {Bytes(int(float(f'{mark.bytes:.2g}')))}")

    @contextmanager
    def _alone(self, environment: Environment, folder: Folder) -> Iterator[None]:
        folder.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.path.with_name(f"{folder.path.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.say(f"another process installs or removes {environment}; waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def _hub_cache() -> Path:
    """Where models of the hub lie, which adapters are served on."""
    return Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()


def _check_space(environment: Environment, recipe: Pip | Build, folder: Folder) -> None:
    free = shutil.disk_usage(folder.path.parent).free
    if free < recipe.size_bytes:
        raise InputError(
            f"no space for {environment}: it takes about {Bytes(recipe.size_bytes)}, and the disk of"
            f" {folder.path.parent} has {free / 1e9:.1f} GB left",
            next_step="free some space, or set ORCH_HOME to a larger disk",
        )
