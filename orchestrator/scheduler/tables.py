"""The values of a decision as numpy tables; the cluster as it changes while a decision places run after run."""

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from orchestrator.scheduler import series
from orchestrator.scheduler.values import ANY, WHOLE, WIDTH, Demand, Node, Placement, number_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Table = npt.NDArray[np.void]

NODE = np.dtype(
    {
        "names": ["id", "kind", "cpus", "memory", "leaves_at", "gpus", "island", "spot", "free"],
        "formats": ["i8", "i8", "f8", "f8", "f8", "i4", "i4", "i4", (np.int32, WIDTH)],
        "offsets": [0, 8, 16, 24, 32, 40, 44, 48, 52],
        "itemsize": 52 + 4 * WIDTH + 4,
    }
)
RUN = np.dtype(
    [("id", "i8"), ("shape", "i8"), ("team", "i8")]
    + [
        (name, "f8")
        for name in ("priority", "submitted", "since", "deadline", "max_queue", "seconds", "size", "preemptions")
    ]
)
RUNNING = np.dtype(
    [("id", "i8"), ("shape", "i8"), ("team", "i8")]
    + [
        (name, "f8")
        for name in ("priority", "started", "ends", "saved", "size", "preemptions", "checkpointable", "yielding")
    ]
)
PART = np.dtype([("node", "i8"), ("gpus", "i8"), ("milli", "f8"), ("cpus", "f8"), ("memory", "f8")])
EPSILON = 1e-6
"""Cores and bytes are floats; a sum of them may miss by this much."""


class Cluster:
    """Nodes with what is free on them; the only thing that changes during a decision, and nobody outside sees it."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes
        self.table = table = series.table(nodes, NODE)
        self.usable = usable = np.isinf(table["leaves_at"])
        width = int(table["gpus"].max(initial=1))
        self.free = np.where(usable[:, None], table["free"][:, :width], 0)
        """[nodes, GPUs] free milli; nothing on a node that leaves."""
        exists = usable[:, None] & (np.arange(width) < table["gpus"][:, None])
        self.size = np.where(exists, WHOLE, 0).astype(np.int32)
        """[nodes, GPUs] milli of each GPU; nothing on a node that leaves."""
        self.cpus = np.where(usable, table["cpus"], -1.0)
        self.memory = np.where(usable, table["memory"], -1.0)
        self._levels: dict[int, Ints] = {}

    def copy(self) -> "Cluster":
        """The same nodes, to be changed apart."""
        other = Cluster.__new__(Cluster)
        other.__dict__ |= self.__dict__
        other.free, other.cpus, other.memory = self.free.copy(), self.cpus.copy(), self.memory.copy()
        other._levels = {}
        return other

    @cached_property
    def index(self) -> tuple[Ints, Ints]:
        """Sorted numbers of the nodes' names, and the order that sorts them."""
        order = np.argsort(self.table["id"])
        return self.table["id"][order], order

    def find(self, numbers: Ints) -> Ints:
        """Row of each node by the number of its name; -1 where there is none."""
        ids, order = self.index
        at = np.minimum(np.searchsorted(ids, numbers), len(ids) - 1)
        return np.where(ids[at] == numbers, order[at], -1)

    def level(self, milli: int) -> Ints:
        """[nodes] how many shares of this size the free GPUs hold."""
        if milli not in self._levels:
            whole = milli * 2 > WHOLE  # at most one a GPU: a comparison is many times faster than a division
            self._levels[milli] = (self.free >= milli if whole else np.maximum(self.free, 0) // milli).sum(1)
        return self._levels[milli]

    def accepts(self, kinds: Sequence[str], spot: bool) -> Bools:
        """[nodes] whether a run of these kinds may lie there."""
        if ANY in kinds:
            found = self.usable
        else:
            numbers = [number_of(kind) for kind in kinds]
            found = self.usable & np.logical_or.reduce([self.table["kind"] == number for number in numbers])
        if not spot:
            found = found & (self.table["spot"] == 0)
        return np.asarray(found, bool)

    def slots(self, demand: Demand, allowed: Bools) -> Ints:
        """[nodes] how many bundles fit."""
        found = self.level(demand.milli) // demand.gpus if demand.gpus else np.full(len(self.nodes), demand.bundles)
        if demand.cpus:  # a floor of a quotient is many times faster than numpy's floor division
            found = np.minimum(found, np.floor((self.cpus + EPSILON) / demand.cpus))
        if demand.memory:
            found = np.minimum(found, np.floor((self.memory + EPSILON) / demand.memory))
        return np.where(allowed, np.clip(found, 0, demand.bundles), 0).astype(np.int64)

    def take(self, demand: Demand, node: int, gpus: Sequence[int]) -> None:
        """Occupy a bundle's place."""
        for gpu in gpus:
            self._change(node, gpu, max(self.free[node, gpu] - demand.milli, 0))
        self.cpus[node] -= demand.cpus
        self.memory[node] -= demand.memory

    def take_all(self, demand: Demand, places: Iterable[tuple[int, Sequence[int]]]) -> None:
        """Occupy the places of a gang."""
        for node, gpus in places:
            self.take(demand, node, gpus)

    def _change(self, node: int, gpu: int, free: int) -> None:
        before = self.free[node, gpu]
        self.free[node, gpu] = free
        for milli, level in self._levels.items():
            level[node] += max(free, 0) // milli - max(before, 0) // milli

    def placement(self, node: int, gpus: Sequence[int]) -> Placement:
        """The place in words."""
        return Placement(self.nodes[node].name, tuple(int(gpu) for gpu in gpus))
