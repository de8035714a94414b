"""What a cluster is: a Ray address and its node pools, read from `clusters/*.yaml`; `local` is this machine."""

import os
import platform
import subprocess
from pathlib import Path

from pydantic import Field

from orchestrator.config import Model
from orchestrator.documents import read
from orchestrator.units import Bytes
from orchestrator.validation import validate


class NodePool(Model):
    """Nodes that are alike."""

    count: int = Field(1, ge=1)
    """Number of nodes."""
    cpus: int = Field(ge=1)
    """CPU cores of one node."""
    memory: Bytes | None = None
    """Main memory of one node."""
    accelerator: str | None = None
    """Kind of its accelerators, such as H100, A100-80GB or MI300X; absent on a CPU node."""
    accelerators: int = Field(0, ge=0)
    """Accelerators of one node."""


class Cluster(Model):
    """Where stages run."""

    name: str
    address: str = "local"
    """`local`: a Ray that is started on this machine for you; else the GCS address of a running Ray, host:port."""
    nodes: list[NodePool] = []
    """Node pools; for `local` they are probed when left out."""

    def accelerators(self) -> dict[str, int]:
        """The most accelerators of each kind that one node has."""
        found: dict[str, int] = {}
        for pool in self.nodes:
            if pool.accelerator:
                found[pool.accelerator] = max(found.get(pool.accelerator, 0), pool.accelerators)
        return found


def load_cluster(path: Path | None) -> Cluster:
    """The cluster of a file, or this machine without one. Raises RecipeError with every problem of the file."""
    if path is None:
        return _probed(Cluster(name="local"))

    return _probed(validate(Cluster, read(path), name=str(path)))


def _probed(cluster: Cluster) -> Cluster:
    if cluster.address != "local" or cluster.nodes:
        return cluster
    kinds = _gpu_names()
    pool = NodePool(cpus=os.cpu_count() or 1, accelerator=kinds[0] if kinds else None, accelerators=len(kinds))
    return cluster.model_copy(update={"nodes": [pool]})


def _gpu_names() -> list[str]:
    """Kinds of this machine's GPUs as nvidia-smi names them, shortened to what recipes write."""
    if platform.system() != "Linux":
        return []
    try:
        command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
    return [_short(*line.rsplit(",", 1)) for line in lines]


def _short(name: str, mebibytes: str) -> str:
    """`NVIDIA A100-SXM4-80GB` -> `A100-80GB`; `NVIDIA H100 80GB HBM3` -> `H100`."""
    kind = next((kind for kind in ("H200", "H100", "A100", "B200", "L40S", "L4") if kind in name), name.strip())
    return f"A100-{'80GB' if int(mebibytes) > 50_000 else '40GB'}" if kind == "A100" else kind
