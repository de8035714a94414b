"""A virtual environment that pip fills: every index, mirror, proxy and certificate that is set for pip holds here too.

It is orch's own pip that does it (`pip --python`): one inside would be another version, and takes long to install.
The lock that is left behind is a requirements file with the digest of everything that pip has installed.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from orchestrator.environments import steps
from orchestrator.environments.environment import Environment, Pip
from orchestrator.environments.folder import Folder


def make(environment: Environment, pip: Pip, folder: Folder) -> None:
    """Fill the folder, replacing what lies there. Raises InputError for a full disk, else InfrastructureError."""
    new = [sys.executable, "-m", "venv", "--clear", "--without-pip", folder.path]
    steps.run(new, what=f"making {folder.path}", log=folder.log)
    fill = _Fill(environment, folder)
    if pip.first:
        fill(pip.first)
    wanted = [requirement.format(version=environment.version) for requirement in pip.requirements]
    if pip.left_out:
        fill(["--no-deps", *wanted])
        fill([*pip.first, *needed(folder.packages, wanted, pip.left_out)])
    else:
        fill([*pip.first, *wanted])
    if pip.known_as:
        _shim(folder.packages, pip.known_as.format(version=environment.version))
    folder.lock.write_text("".join(fill.locked()))


class _Fill:
    """`pip install` into one environment, and what it has installed so far."""

    def __init__(self, environment: Environment, folder: Folder) -> None:
        self._environment, self._folder = environment, folder
        self._installed: dict[str, str] = {}

    def __call__(self, arguments: Sequence[str]) -> None:
        report = self._folder.path / "report.json"
        command = [sys.executable, "-m", "pip", "--python", self._folder.python, "install", "--no-input"]
        command += ["--progress-bar", "off", "--disable-pip-version-check", "--report", report, *arguments]
        steps.run(command, what=f"installing {self._environment}", log=self._folder.log)
        for item in json.loads(report.read_text())["install"]:
            name = canonicalize_name(item["metadata"]["name"])
            self._installed[name] = _pinned(name, item["metadata"]["version"], item["download_info"])
        report.unlink()

    def locked(self) -> Iterator[str]:
        """Lines of a requirements file."""
        return (self._installed[name] for name in sorted(self._installed))


def _pinned(name: str, version: str, download: dict[str, dict[str, dict[str, str]]]) -> str:
    digest = download.get("archive_info", {}).get("hashes", {}).get("sha256")
    return f"{name}=={version}" + (f" --hash=sha256:{digest}" if digest else "") + "\n"


def check_imports(environment: Environment, folder: Folder) -> None:
    """Raises InfrastructureError unless the environment's module can be imported there."""
    line = [folder.python, "-c", f"import {environment.check}"]
    steps.run(line, what=f"importing {environment.check} from {folder.path}", log=folder.log, directory=folder.path)


def needed(packages: Path, wanted: Iterable[str], left_out: Iterable[str]) -> list[str]:
    """What the installed distributions named in `wanted` ask for, here and with their extras, less `left_out`."""
    unwanted = {canonicalize_name(name) for name in left_out}
    found: dict[str, None] = {}
    for asked in map(Requirement, wanted):
        for requirement in map(Requirement, _distribution(packages, asked.name).requires or []):
            extras = asked.extras or {""}
            applies = requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in extras)
            if applies and canonicalize_name(requirement.name) not in unwanted:
                requirement.marker = None
                found[str(requirement)] = None
    return list(found)


def installed(packages: Path) -> dict[str, str]:
    """Canonical name -> version of every distribution there."""
    return {canonicalize_name(one.name): one.version for one in distributions(path=[str(packages)])}


def _distribution(packages: Path, name: str) -> Distribution:
    wanted = canonicalize_name(name)
    return next(one for one in distributions(path=[str(packages)]) if canonicalize_name(one.name) == wanted)


def _shim(packages: Path, known_as: str) -> None:
    """Metadata without a package, for code that asks for the version of its distribution by another name."""
    name, version = known_as.split("==")
    folder = packages / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
