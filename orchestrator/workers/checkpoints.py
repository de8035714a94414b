"""Checkpoints of training: folders `checkpoint-STEP`, each whole or not there at all.

One is written under another name, with a manifest of its files' digests as the last of them, and then renamed, if its
attempt is still the newest (`fencing.py`). What a crash, a full disk or a broken one has left is found out when it is
read: the one before it counts then.
"""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from orchestrator import fencing
from orchestrator.digests import digest_path, files_of
from orchestrator.fencing import Writer

MANIFEST = "manifest.json"
PREFIX = "checkpoint-"
KEPT = 2
"""The one before the newest is what is left when that one turns out to be damaged."""


def publish(made: Path, checkpoints: Path, step: int, writer: Writer | None) -> Path:
    """Seal a folder that holds all files of a checkpoint, and give it its name; older ones but KEPT - 1 are removed.

    Raises StaleClaimError when another attempt has begun.
    """
    about: dict[str, Any] = {"step": step, "files": _digests(made)}
    if writer is not None:
        about |= {"run": writer.run, "fence": writer.fence}
    (made / MANIFEST).write_text(json.dumps(about))
    target = checkpoints / f"{PREFIX}{step}"
    fencing.publish(made, target, writer)
    for old in _found(checkpoints)[KEPT:]:
        shutil.rmtree(old)
    return target


def newest(checkpoints: Path, say: Callable[[str], None]) -> Path | None:
    """The checkpoint with the most steps that is as it was written; damaged ones before it are said and removed."""
    for checkpoint in _found(checkpoints):
        problem = damage(checkpoint)
        if problem is None:
            return checkpoint
        say(f"{checkpoint.name} is damaged and skipped: {problem}")
        shutil.rmtree(checkpoint)
    return None


def damage(checkpoint: Path) -> str | None:
    """What is wrong with its files, or None."""
    try:
        listed = {
            name: tuple(found) for name, found in json.loads((checkpoint / MANIFEST).read_text())["files"].items()
        }
    except FileNotFoundError:
        return f"it has no {MANIFEST}"
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        return f"its {MANIFEST} cannot be read: {error}"
    try:
        found = _digests(checkpoint)
    except OSError as error:
        return f"it cannot be read: {error}"
    wrong = sorted(name for name in listed.keys() | found.keys() if listed.get(name) != found.get(name))
    return f"{wrong[0]} is {_state(wrong[0], listed, found)}" if wrong else None


def _state(name: str, listed: dict[str, tuple[Any, ...]], found: dict[str, tuple[str, int]]) -> str:
    if name not in found:
        return "missing"
    if name not in listed:
        return "none of its files"
    _, size = listed[name]
    return f"not what was written ({found[name][1]} bytes of {size})"


def _digests(folder: Path) -> dict[str, tuple[str, int]]:
    """Of each file but the manifest: digest and bytes; several at a time, since hashing releases Python's lock."""
    files = [file for file in files_of(folder) if file.name != MANIFEST]
    with ThreadPoolExecutor() as pool:
        return dict(zip((str(file.relative_to(folder)) for file in files), pool.map(digest_path, files), strict=True))


def _found(checkpoints: Path) -> list[Path]:
    """By steps, the most first."""
    numbered = [path for path in checkpoints.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(numbered, key=lambda path: int(path.name.removeprefix(PREFIX)), reverse=True)
