"""A cluster from its file, by path or by name, or this machine as one."""

import os
from collections.abc import Iterator
from pathlib import Path

from orchestrator import gpus
from orchestrator.catalog import catalog
from orchestrator.clusters import checks
from orchestrator.clusters.cluster import Cluster, NodePool
from orchestrator.documents import read
from orchestrator.errors import InputError
from orchestrator.plugins import nearest
from orchestrator.validation import validate

FOLDER = "clusters"
"""Of the current folder, and of $ORCH_HOME: where cluster files lie."""
LOCAL = "local"


def load_cluster(given: Path | None, home: Path | None = None) -> Cluster:
    """The cluster of a file, or of a file's name as in `files`, or this machine without one.

    A catalog in `home` adds to the accelerators that are known. Raises RecipeError with every problem of the file.
    """
    path = given and _path(given, home)
    if path is None:
        return probed(Cluster(name=LOCAL))
    known = catalog.load(home)
    return probed(
        validate(
            Cluster,
            read(path),
            name=str(path),
            check=lambda cluster: [*checks.problems(cluster, known), *checks.quota_problems(probed(cluster))],
        )
    )


def files(home: Path | None = None, cwd: Path | None = None) -> Iterator[Path]:
    """Those in the current folder's `clusters/`, then in `$ORCH_HOME/clusters/`; of equal names the first wins."""
    folders = [(cwd or Path.cwd()) / FOLDER, *([home / FOLDER] if home else [])]
    seen: set[str] = set()
    for path in (path for folder in folders for path in sorted(folder.glob("*.yaml"))):
        if path.stem not in seen:
            seen.add(path.stem)
            yield path


def probed(cluster: Cluster) -> Cluster:
    """With this machine as its node where it is `local` and names none."""
    if cluster.address != LOCAL or cluster.nodes:
        return cluster
    kinds = [gpus.kind(gpu["name"], gpu["memory_bytes"]) for gpu in gpus.probe()]
    pool = NodePool(cpus=os.cpu_count() or 1, accelerator=kinds[0] if kinds else None, accelerators=len(kinds))
    return cluster.model_copy(update={"nodes": [pool]})


def _path(given: Path, home: Path | None) -> Path | None:
    """None: this machine. Raises InputError for the name of no file."""
    if given.suffix or len(given.parts) > 1 or given.exists():
        return given
    known = {path.stem: path for path in files(home)}
    if given.name not in {*known, LOCAL}:
        hint = nearest(given.name, sorted({*known, LOCAL}))
        raise InputError(f"no cluster {given.name!r}; {hint}", next_step="`orch clusters list` shows where they are")
    return known.get(given.name)
