"""Which of many shapes fit now: one table of shapes by nodes, kept up to date while runs are placed."""

from collections.abc import Sequence

import numpy as np

from orchestrator.scheduler.tables import EPSILON, Bools, Cluster
from orchestrator.scheduler.values import Run


class Fits:
    """How many bundles of each shape every node with something free could take."""

    def __init__(self, cluster: Cluster, shapes: Sequence[Run]) -> None:
        self.cluster = cluster
        self.allowed = accepted(cluster, shapes)
        demands = [run.demand for run in shapes]
        self.gpus = np.array([d.gpus for d in demands])
        self.milli = np.array([d.milli for d in demands])
        self.cpus = np.array([d.cpus for d in demands])
        self.memory = np.array([d.memory for d in demands])
        self.bundles = np.array([d.bundles for d in demands])
        self.slots = self._single()
        for row in np.flatnonzero(self.bundles > 1):
            self.slots[row] = cluster.slots(demands[row], self.allowed[row])
        self.total = self.slots.sum(1)

    def on(self, cluster: Cluster) -> "Fits":
        """The same on a cluster that has less free on a few nodes."""
        other = Fits.__new__(Fits)
        other.__dict__ |= self.__dict__
        other.cluster, other.slots, other.total = cluster, self.slots.copy(), self.total.copy()
        less = (cluster.free != self.cluster.free).any(1) | (cluster.cpus != self.cluster.cpus)
        other.update(np.flatnonzero(less | (cluster.memory != self.cluster.memory)).tolist())
        return other

    def possible(self) -> Bools:
        """[shapes] whether the whole gang fits now."""
        return np.asarray(self.total >= self.bundles)

    def update(self, nodes: Sequence[int]) -> None:
        """Count again what these nodes could take."""
        for node in set(nodes):
            found = self._at(node)
            self.total += found - self.slots[:, node]
            self.slots[:, node] = found

    def _single(self) -> np.ndarray:
        cluster, needs_gpu = self.cluster, self.gpus > 0
        found = self.allowed.copy()
        levels, which = np.unique(self.milli, return_inverse=True)
        table = np.stack([cluster.level(int(milli)) for milli in levels])
        live = np.flatnonzero((cluster.free > 0).any(1))
        if not len(live):
            found[needs_gpu] = False
        elif len(live) * 2 < len(cluster.nodes):
            return self._sparse(table[which], live)
        found &= (table[which] >= self.gpus[:, None]) | ~needs_gpu[:, None]
        found &= cluster.cpus >= self.cpus[:, None] - EPSILON
        found &= cluster.memory >= self.memory[:, None] - EPSILON
        return found.astype(np.int64)

    def _sparse(self, level: np.ndarray, live: np.ndarray) -> np.ndarray:
        cluster = self.cluster
        found = np.zeros(self.allowed.shape, np.int64)
        fits = self.allowed[:, live] & (level[:, live] >= self.gpus[:, None])
        fits &= cluster.cpus[live] >= self.cpus[:, None] - EPSILON
        fits &= cluster.memory[live] >= self.memory[:, None] - EPSILON
        found[:, live] = fits
        for row in np.flatnonzero(self.gpus == 0):
            enough = (cluster.cpus >= self.cpus[row] - EPSILON) & (cluster.memory >= self.memory[row] - EPSILON)
            found[row] = self.allowed[row] & enough
        return found

    def _at(self, node: int) -> np.ndarray:
        cluster = self.cluster
        shares = (np.maximum(cluster.free[node], 0)[None, :] // self.milli[:, None]).sum(1)
        found = np.where(self.gpus > 0, shares // np.maximum(self.gpus, 1), self.bundles).astype(float)
        found = np.minimum(found, np.floor((cluster.cpus[node] + EPSILON) / np.maximum(self.cpus, EPSILON)))
        found = np.minimum(found, np.floor((cluster.memory[node] + EPSILON) / np.maximum(self.memory, EPSILON)))
        return np.where(self.allowed[:, node], np.clip(found, 0, self.bundles), 0).astype(np.int64)


def accepted(cluster: Cluster, shapes: Sequence[Run]) -> Bools:
    """[shapes, nodes] whether a run of this shape may lie there."""
    known: dict[tuple[tuple[str, ...], bool], Bools] = {}
    for run in shapes:
        if (run.kinds, run.spot) not in known:
            known[run.kinds, run.spot] = cluster.accepts(run.kinds, run.spot)
    return np.stack([known[run.kinds, run.spot] for run in shapes])
