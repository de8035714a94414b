"""Whether an environment that is there still works, and what to do where it does not."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from orchestrator.environments import on_path, virtualenv
from orchestrator.environments.environment import Build, Environment, Kind, Pip
from orchestrator.environments.folder import Folder

_TIMEOUT_S = 300
"""An engine's module may load its kernels from a slow disk."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    found: str


def examine(environment: Environment, kind: Kind, folder: Folder) -> list[Finding]:
    """What was looked at, in order; where the first is not ok there was nothing else to look at."""
    state, recipe = folder.state(environment, kind), environment.kinds.get(kind)
    complete = Finding("complete", state == "complete", _STATES[state])
    if state in ("missing", "incomplete"):
        return [complete]
    if isinstance(recipe, Build):
        programs = [_program(folder.path / "bin" / name, must_tell=False) for name in recipe.targets]
        return [complete, *programs, *(_kept(folder.path / name) for name in recipe.kept)]
    return [complete, *_virtualenv(environment, recipe, folder)]


def _virtualenv(environment: Environment, recipe: Pip | None, folder: Folder) -> list[Finding]:
    """`recipe` is None where no engine declares the environment any more."""
    findings = [_python(folder)]
    if recipe:
        findings.append(_versions(folder, recipe))
    if environment.check:
        findings.append(_import(environment.check, folder))
    if environment.program in virtualenv.programs(folder.packages):
        findings.append(_program(folder.path / "bin" / environment.program, must_tell=True))
    return findings


_STATES = {
    "missing": "not installed",
    "incomplete": "half-installed: it is not used",
    "outdated": "installed by another version of orch, with other requirements",
    "complete": "installed",
}


def _python(folder: Folder) -> Finding:
    code, said = _run([folder.python, "-c", "import sys; print(sys.version.split()[0])"])
    return Finding("python", code == 0, said)


def _import(module: str, folder: Folder) -> Finding:
    code, said = _run([folder.python, "-c", f"import {module}"])
    return Finding(f"import {module}", code == 0, said if code else "works")


def _versions(folder: Folder, recipe: Pip) -> Finding:
    """What is installed against the lock."""
    try:
        locked = dict(line.split(" ")[0].strip().split("==") for line in folder.lock.read_text().splitlines())
        there = virtualenv.installed(folder.packages)
    except (OSError, ValueError) as error:
        return Finding("versions", False, f"the lock cannot be read: {error}")
    if recipe.known_as:
        there.pop(canonicalize_name(recipe.known_as.split("==")[0]), None)
    wrong = differences(locked, there)
    return Finding("versions", not wrong, "; ".join(wrong[:5]) or f"{len(locked)} distributions as locked")


def differences(locked: dict[str, str], there: dict[str, str]) -> list[str]:
    """How the installed versions differ from the locked ones (pure)."""
    names = sorted(locked.keys() | there.keys())
    return [
        f"{name} {there.get(name, 'missing')}, locked {locked.get(name, 'out')}"
        for name in names
        if locked.get(name) != there.get(name)
    ]


def _program(program: Path, *, must_tell: bool) -> Finding:
    """A program that was built here need only start: not every one knows --version."""
    said = on_path.said_version(program)
    version = on_path.version(said) if said else None
    works = said is not None and (version is not None or not must_tell)
    return Finding(program.name, works, version or ("starts" if works else _cannot(program)))


def _kept(path: Path) -> Finding:
    return Finding(path.name, path.exists(), str(path) if path.exists() else f"{path} is not there")


def _cannot(program: Path) -> str:
    return f"{program} --version does not answer" if program.exists() else f"{program} is not there"


def _run(command: list[str | Path]) -> tuple[int, str]:
    """Exit code and last line."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return done.returncode, ((done.stdout + done.stderr).strip().splitlines() or [""])[-1]
