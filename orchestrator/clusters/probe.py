"""What one node has, asked on the node itself: accelerators, drivers, disks, memory, environments, versions.

A fact that cannot be read is None or left out, never guessed.
"""

import importlib.metadata
import os
import platform
import shutil
import tempfile
from pathlib import Path

from orchestrator import gpus
from orchestrator.clusters import storage
from orchestrator.config import Model
from orchestrator.environments.folder import Folder
from orchestrator.errors import OrchError


class Accelerator(Model):
    """One accelerator, as the vendor's tool tells."""

    kind: str
    """As a recipe calls it."""
    memory_bytes: int | None
    memory_free_bytes: int | None
    """What nothing uses at this moment."""
    driver: str | None


class Asked(Model):
    """What a node is asked about."""

    home: str
    """$ORCH_HOME, which all nodes share."""
    home_mark: str
    """Name of a file in it."""
    storage: str | None = None
    storage_mark: str | None = None
    """Name of an object in it."""


class NodeReport(Model):
    """The answer."""

    cpus: int
    memory_bytes: int | None
    memory_free_bytes: int | None
    """Main memory, and what of it can be had without swapping."""
    accelerators: list[Accelerator]
    home_free_bytes: int | None
    """On the disk of $ORCH_HOME; None: the folder is not there."""
    tmp_free_bytes: int
    environments: list[str]
    """Engines and quantizers in $ORCH_HOME, such as `vllm 0.32.0 (cuda)`."""
    versions: dict[str, str | None]
    """Of python, ray and orch."""
    sees_home: bool
    """Whether $ORCH_HOME is the caller's folder."""
    storage_problem: str | None
    """Why the shared storage cannot be used here; None: it can be read and written, or there is none."""


def report(asked: Asked) -> NodeReport:
    """Of this node."""
    total, free = memory()
    home = Path(asked.home)
    return NodeReport(
        cpus=os.cpu_count() or 1,
        memory_bytes=total,
        memory_free_bytes=free,
        accelerators=accelerators(),
        home_free_bytes=shutil.disk_usage(home).free if home.is_dir() else None,
        tmp_free_bytes=shutil.disk_usage(tempfile.gettempdir()).free,
        environments=environments(home),
        versions=versions(),
        sees_home=storage.has_mark(asked.home, asked.home_mark),
        storage_problem=_storage_problem(asked),
    )


def accelerators() -> list[Accelerator]:
    """Of this node, of all vendors."""
    found, free = gpus.probe(), gpus.free()
    rest = free if len(free) == len(found) else [None] * len(found)
    return [
        Accelerator(
            kind=gpus.kind(gpu["name"], gpu["memory_bytes"]),
            memory_bytes=gpu["memory_bytes"],
            memory_free_bytes=bytes_free,
            driver=gpu["driver"],
        )
        for gpu, bytes_free in zip(found, rest, strict=True)
    ]


def memory() -> tuple[int | None, int | None]:
    """(bytes, free bytes) of main memory, from /proc/meminfo; None where there is none."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None, None
    found = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return found.get("MemTotal"), found.get("MemAvailable")


def environments(home: Path) -> list[str]:
    """Those that are complete, by the names of their folders."""
    folders = [Folder(path) for path in sorted((home / "engines").glob("*/"))]
    names = [folder.name for folder in folders if folder.mark()]
    return [f"{name} {version} ({kind})" for name, version, kind in filter(None, names)]


def versions() -> dict[str, str | None]:
    """Of what must be the same on every node; None: not installed."""
    found: dict[str, str | None] = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in ("ray", "orch"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _storage_problem(asked: Asked) -> str | None:
    if asked.storage is None:
        return None
    try:
        storage.check_writable(asked.storage)
    except OrchError as error:
        return error.message
    if asked.storage_mark and not storage.has_mark(asked.storage, asked.storage_mark):
        return f"the storage {asked.storage} is another one here: what was written elsewhere is not in it"
    return None
