"""A cluster from its file, or this machine as one."""

import os
from pathlib import Path

from orchestrator import gpus
from orchestrator.clusters.cluster import Cluster, NodePool
from orchestrator.documents import read
from orchestrator.validation import validate


def load_cluster(path: Path | None) -> Cluster:
    """The cluster of a file, or this machine without one. Raises RecipeError with every problem of the file."""
    if path is None:
        return probed(Cluster(name="local"))
    return probed(validate(Cluster, read(path), name=str(path)))


def probed(cluster: Cluster) -> Cluster:
    """With this machine as its node where it is `local` and names none."""
    if cluster.address != "local" or cluster.nodes:
        return cluster
    kinds = [gpus.kind(gpu["name"], gpu["memory_bytes"]) for gpu in gpus.probe()]
    pool = NodePool(cpus=os.cpu_count() or 1, accelerator=kinds[0] if kinds else None, accelerators=len(kinds))
    return cluster.model_copy(update={"nodes": [pool]})
