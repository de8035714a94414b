"""An engine that the user has installed: its program on PATH."""

import re
import shutil
import subprocess
from pathlib import Path

from orchestrator.environments.environment import Environment, Installed

_TIMEOUT_S = 120
"""A Python engine imports its accelerator's libraries before it says its version."""
_NOT_FOUND = 126
"""A shell's exit code for what it cannot run; 127 for what is not there, as a version manager's stand-in says it."""


def find(environment: Environment) -> Installed | None:
    """Its program on PATH, with the version that it tells; None where it is not there or cannot be started."""
    program = shutil.which(environment.program) if environment.program else None
    said = said_version(Path(program)) if program else None
    if program is None or said is None:
        return None
    folder = Path(program).resolve().parent.parent
    return Installed(name=environment.name, version=version(said) or "unknown", where="path", folder=folder)


def said_version(program: Path) -> tuple[int, str] | None:
    """Exit code and output of `program --version`; None where it cannot be started, or was ended by a signal."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (done.returncode, done.stdout.strip() or done.stderr.strip()) if 0 <= done.returncode < _NOT_FOUND else None


def version(said: tuple[int, str]) -> str | None:
    """The version in what a program answered: after the word, else in its last line; programs log around it."""
    code, text = said
    if code or not text:
        return None
    found = re.search(r"version:?\s+(\d\S*)", text) or re.search(r"(\d+\.\S*)", text.splitlines()[-1])
    return found.group(1) if found else None
