"""A virtual environment that pip fills: every index, mirror, proxy and certificate that is set for pip holds here too.

It is orch's own pip that does it (`pip --python`): one inside would be another version, and takes long to install.
The lock that is left behind is a requirements file with the digest of everything that pip has installed.
"""

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from orchestrator.environments import steps
from orchestrator.environments.environment import Environment, Pip
from orchestrator.environments.folder import Folder
from orchestrator.errors import InfrastructureError, InputError


def make(environment: Environment, pip: Pip, folder: Folder) -> None:
    """Fill the folder, replacing what lies there. Raises InputError for a full disk, else InfrastructureError."""
    create(folder.path, folder.log, interpreter(environment, pip))
    locked: dict[str, str] = {}

    def fill(*arguments: str) -> None:
        for item in pip_install(folder.python, arguments, what=f"installing {environment}", log=folder.log):
            name = canonicalize_name(item["metadata"]["name"])
            locked[name] = _pinned(name, item)

    wanted = [requirement.format(version=environment.version) for requirement in pip.requirements]
    if pip.first:
        fill(*pip.first)
    if pip.left_out:
        fill("--no-deps", *wanted)
        wanted = needed(folder.packages, wanted, pip.left_out)
    fill(*pip.first, *wanted)
    if pip.known_as:
        _shim(folder.packages, pip.known_as.format(version=environment.version))
    folder.lock.write_text("".join(locked[name] for name in sorted(locked)))
    if environment.check:
        _check_imports(environment.check, folder)


def interpreter(environment: Environment, pip: Pip) -> str:
    """A Python that there are wheels for: orch's own, else one on PATH. Raises InputError where there is none."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not pip.pythons or own in pip.pythons:
        return sys.executable
    found = next(filter(None, (shutil.which(f"python{version}") for version in pip.pythons)), None)
    if found is None:
        raise InputError(
            f"{environment} is made for Python {' or '.join(pip.pythons)}; orch runs on {own}, and no other is on PATH",
            next_step=f"put python{pip.pythons[0]} on PATH, or name an image for it in the cluster file",
        )
    return found


def create(folder: Path, log: Path, python: str = sys.executable) -> None:
    """An empty one, without pip."""
    steps.run([python, "-m", "venv", "--clear", "--without-pip", folder], what=f"making {folder}", log=log)


def pip_install(python: Path, arguments: Sequence[str], *, what: str, log: Path) -> list[dict[str, Any]]:
    """Install into the environment of this interpreter; pip's report on each distribution that it has installed."""
    if importlib.util.find_spec("pip") is None:
        raise InfrastructureError(f"{what} needs pip, and {sys.executable} has none", next_step="python -m ensurepip")
    report = log.with_suffix(".json")
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--no-input", "--progress-bar", "off"]
    steps.run([*command, "--disable-pip-version-check", "--report", report, *arguments], what=what, log=log)
    found: list[dict[str, Any]] = json.loads(report.read_text())["install"]
    report.unlink()
    return found


def needed(packages: Path, wanted: Iterable[str], left_out: Iterable[str]) -> list[str]:
    """What the installed distributions named in `wanted` ask for with their extras, less `left_out`.

    Conditions on Python and machine stay in the texts: it is pip that judges them, for the environment's Python.
    """
    unwanted = {canonicalize_name(name) for name in left_out}
    asked = (need for requirement in map(Requirement, wanted) for need in _needs(packages, requirement))
    return [need for need in dict.fromkeys(asked) if canonicalize_name(Requirement(need).name) not in unwanted]


def _needs(packages: Path, wanted: Requirement) -> Iterator[str]:
    for requirement in map(Requirement, _distribution(packages, wanted.name).requires or []):
        marker = requirement.marker
        if marker and "extra" in str(marker):
            if not any(marker.evaluate({"extra": extra}) for extra in wanted.extras or {""}):
                continue
            requirement.marker = None
        yield str(requirement)


def installed(packages: Path) -> dict[str, str]:
    """Canonical name -> version of every distribution there."""
    return {canonicalize_name(one.name): one.version for one in distributions(path=[str(packages)])}


def programs(packages: Path) -> set[str]:
    """Names of the programs that the distributions there come with."""
    scripts = (one.entry_points.select(group="console_scripts") for one in distributions(path=[str(packages)]))
    return {script.name for found in scripts for script in found}


def _distribution(packages: Path, name: str) -> Distribution:
    wanted = canonicalize_name(name)
    return next(one for one in distributions(path=[str(packages)]) if canonicalize_name(one.name) == wanted)


def _pinned(name: str, item: Mapping[str, Any]) -> str:
    digest = item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
    return f"{name}=={item['metadata']['version']}" + (f" --hash=sha256:{digest}" if digest else "") + "\n"


def _shim(packages: Path, known_as: str) -> None:
    """Metadata without a package, for code that asks for the version of its distribution by another name."""
    name, version = known_as.split("==")
    folder = packages / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def _check_imports(module: str, folder: Folder) -> None:
    """Raises InfrastructureError unless the module can be imported there."""
    line = [folder.python, "-c", f"import {module}"]
    steps.run(line, what=f"importing {module} from {folder.path}", log=folder.log, directory=folder.path)
