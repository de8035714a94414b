"""What a cluster is: a Ray address and its node pools, read from `clusters/*.yaml`; `local` is this machine."""

import os
from pathlib import Path

from pydantic import Field

from orchestrator import gpus
from orchestrator.config import Model
from orchestrator.documents import read
from orchestrator.units import Bytes, Usd
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
    usd_per_hour: Usd | None = None
    """Price of one node for an hour; without it no $ per million tokens is given."""
    price_source: str | None = None
    """Where the price comes from, such as `list price of ..., 2026-11-01`; stands beside every price in a report."""


class Cluster(Model):
    """Where stages run."""

    name: str
    address: str = "local"
    """`local`: a Ray that is started on this machine for you; else the GCS address of a running Ray, host:port."""
    nodes: list[NodePool] = []
    """Node pools; for `local` they are probed when left out."""
    images: dict[str, str] = {}
    """Container images of engines and quantizers, by their names in `orch engines list`."""
    versions: dict[str, str] = {}
    """Versions of engines and quantizers, where another one than the pinned one is wanted; by the same names."""

    def accelerators(self) -> dict[str, int]:
        """The most accelerators of each kind that one node has."""
        found: dict[str, int] = {}
        for pool in self.nodes:
            if pool.accelerator:
                found[pool.accelerator] = max(found.get(pool.accelerator, 0), pool.accelerators)
        return found

    def price(self, accelerator: str | None, count: float) -> tuple[float | None, str | None]:
        """($ per hour, source) of so many accelerators of a node, or of a whole node without any; None: not known.

        A part of a node costs its share of the node's price.
        """
        pools = [pool for pool in self.nodes if accelerator is None or pool.accelerator == accelerator]
        if not pools or pools[0].usd_per_hour is None:
            return None, None
        share = count / pools[0].accelerators if accelerator and count and pools[0].accelerators else 1.0
        return pools[0].usd_per_hour * share, pools[0].price_source or f"cluster {self.name}"


def load_cluster(path: Path | None) -> Cluster:
    """The cluster of a file, or this machine without one. Raises RecipeError with every problem of the file."""
    if path is None:
        return _probed(Cluster(name="local"))

    return _probed(validate(Cluster, read(path), name=str(path)))


def _probed(cluster: Cluster) -> Cluster:
    if cluster.address != "local" or cluster.nodes:
        return cluster
    kinds = [gpus.kind(gpu["name"], gpu["memory_bytes"]) for gpu in gpus.probe()]
    pool = NodePool(cpus=os.cpu_count() or 1, accelerator=kinds[0] if kinds else None, accelerators=len(kinds))
    return cluster.model_copy(update={"nodes": [pool]})
