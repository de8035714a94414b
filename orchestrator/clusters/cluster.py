"""What a cluster is, as values: node pools, quotas and storage; `load.py` reads one from its file."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from orchestrator.config import Model
from orchestrator.units import Bytes, Usd

MOST_ACCELERATORS = 16
"""Of one node, that the scheduler's tables have room for."""


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
    accelerators: int = Field(0, ge=0, le=MOST_ACCELERATORS)
    """Accelerators of one node."""
    island: int = Field(0, ge=0)
    """Accelerators of one NVLink (or xGMI) island, neighbours by index; 0: all of a node's are one."""
    spot: bool = False
    """Whether its nodes may be taken away at short notice."""
    name: str = Field("", validate_default=True, pattern=r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$")
    """Lower-case letters, digits and `-`; without it such as `h100x8`, `h100x8-spot` or `cpu`."""
    labels: dict[str, str] = {}
    """Labels that its nodes carry in Ray, such as {rack: r1}; what `orch clusters up` writes gives them these."""
    image: str | None = None
    """Container image that its nodes run in, where a launcher starts them in one."""
    instance: str | None = None
    """Machine type of a cloud, such as p5.48xlarge or a3-highgpu-8g."""
    hosts: list[str] = []
    """Addresses of its machines, where they are yours."""
    usd_per_hour: Usd | None = None
    """Price of one node for an hour; without it no $ per million tokens is given."""
    price_source: str | None = None
    """Where the price comes from, such as `list price of ..., 2026-11-01`; stands beside every price in a report."""

    @field_validator("name", mode="before")
    @classmethod
    def _named(cls, given: Any, info: ValidationInfo) -> Any:
        """A default factory that reads other fields would be one more error wherever one of them is wrong."""
        return given or derived_name(info.data)


def derived_name(pool: Mapping[str, Any]) -> str:
    """Of a pool that has none, from its other fields."""
    kind, spot = pool.get("accelerator"), "-spot" if pool.get("spot") else ""
    if not kind:
        return f"cpu{spot}"
    return re.sub(r"[^a-z0-9]+", "-", str(kind).lower()).strip("-") + f"x{pool.get('accelerators', 0)}{spot}"


class Quota(Model):
    """What a team is owed."""

    gpus: float = Field(ge=0, allow_inf_nan=False)
    """Accelerators of its own: lent while it does not use them, and taken back when it does."""
    borrow: float | None = Field(None, ge=0, allow_inf_nan=False)
    """How many more it may use while others do not; absent: as many as there are."""


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
    storage: str | None = None
    """What all nodes can read and write: an absolute path, or file://, s3://, gs:// or az://."""
    quotas: dict[str, Quota] = {}
    """By team; without any, everybody may use everything."""
    launcher: dict[str, Any] | None = None
    """Who starts the nodes, for `orch clusters up`: its `name` and its options; absent: nobody but you."""

    @property
    def launcher_options(self) -> dict[str, Any]:
        """Of the launcher's own."""
        return {name: value for name, value in (self.launcher or {}).items() if name != "name"}

    @property
    def gpus(self) -> int:
        """Accelerators of all nodes."""
        return sum(pool.count * pool.accelerators for pool in self.nodes)

    def pool(self, name: str) -> NodePool | None:
        """The pool of that name."""
        return next((pool for pool in self.nodes if pool.name == name), None)

    def accelerators(self) -> dict[str, int]:
        """The most accelerators of each kind that one node has."""
        found: dict[str, int] = {}
        for pool in self.nodes:
            if pool.accelerator:
                found[pool.accelerator] = max(found.get(pool.accelerator, 0), pool.accelerators)
        return found

    def price(self, accelerator: str | None, count: float) -> tuple[float | None, str | None]:
        """($ per hour, source) of so many accelerators of a node, or of a whole node without any; None: not known.

        A part of a node costs its share of the node's price. Of several pools the first one counts that is no spot
        pool and has a node with so many.
        """
        pools = [pool for pool in self.nodes if accelerator is None or pool.accelerator == accelerator]
        pool = min(pools, key=lambda one: (one.accelerators < count, one.spot), default=None)
        if pool is None or pool.usd_per_hour is None:
            return None, None
        share = count / pool.accelerators if accelerator and count and pool.accelerators else 1.0
        return pool.usd_per_hour * share, pool.price_source or f"cluster {self.name}"
