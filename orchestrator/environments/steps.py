"""One step of an installation: a command that dies with orch, whose output is kept, and whose failure is explained."""

import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path

from orchestrator import processes
from orchestrator.errors import InfrastructureError, InputError, OrchError

_UNREACHABLE = ("connection broken by", "Failed to establish a new connection", "Temporary failure in name resolution")
_MISSING = ("No matching distribution found", "Could not find a version")
_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))


def run(command: Sequence[object], *, what: str, log: Path, directory: Path | None = None) -> None:
    """Run it to its end. Raises InputError for a full disk, InfrastructureError otherwise."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        output.write(f"$ {' '.join(map(str, command))}\n")
        before = output.tell()
    words = [str(part) for part in command]
    # packages that PYTHONPATH shows would be taken for installed ones
    process = processes.start(words, log=log, directory=directory, environment={"PYTHONPATH": None})
    try:
        code = process.wait()
    finally:
        process.stop()  # after Ctrl-C: it must not go on writing where the next one begins
    if code:
        with log.open(errors="replace") as written:
            written.seek(before)
            raise failure(what, written.read(), code, log)


def failure(what: str, said: str, code: int, log: Path) -> OrchError:
    """The error for a step that ended with this output (pure)."""
    if any(words in said for words in _FULL):
        return disk_full(what)
    next_step = f"read {log}"
    reason = f"{processes.died_of(code)}:\n{_cause(said)}"
    if any(words in said for words in _UNREACHABLE):
        reason = f"the package index cannot be reached:\n{_cause(said)}"
        next_step = "check the network, proxy and `pip config list`, then run the same command again"
    elif any(words in said for words in _MISSING):
        reason = f"the package index does not have it:\n{_cause(said)}"
        next_step = "check `pip config list` (index, constraints) and this Python's version; the whole log: " + str(log)
    return InfrastructureError(f"{what} failed: {reason}", next_step=next_step)


def disk_full(what: str) -> InputError:
    """The error for an installation that found no space."""
    return InputError(
        f"no space left on the device while {what}",
        next_step="free some space, or set ORCH_HOME to a larger disk, then run the same command again",
    )


def _cause(said: str) -> str:
    """From the first line that pip, cmake or a compiler calls an error; else the end of the output."""
    lines = said.strip().splitlines()
    first = next((number for number, line in enumerate(lines) if re.search(r"^ERROR|CMake Error|\berror:", line)), -6)
    return "\n".join(lines[first:][:6])
