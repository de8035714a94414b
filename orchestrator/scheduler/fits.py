"""Which of many shapes fit now: one table of shapes by nodes, kept up to date while runs are placed."""

from collections.abc import Sequence

import numpy as np

from orchestrator.scheduler.tables import EPSILON, Bools, Cluster, Ints
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
        self.slots = np.zeros(self.allowed.shape, np.int64)
        """[shapes, nodes]"""
        live, every = np.flatnonzero((cluster.free > 0).any(1)), np.arange(len(cluster.nodes))
        for rows, nodes in ((self.gpus > 0, live), (self.gpus == 0, every)):
            for some in (np.flatnonzero(rows & (self.bundles == 1)), np.flatnonzero(rows & (self.bundles > 1))):
                if len(some) and len(nodes):
                    self.slots[np.ix_(some, nodes)] = self._count(some, nodes)
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

    def _count(self, rows: Ints, nodes: Ints) -> Ints:
        """[rows, nodes] bundles that fit; to know whether one does, no division is needed."""
        cluster, gpus = self.cluster, self.gpus[rows, None]
        levels, which = np.unique(self.milli[rows], return_inverse=True)
        level = np.stack([cluster.level(int(milli))[nodes] for milli in levels])[which]
        cpus, memory = cluster.cpus[nodes] + EPSILON, cluster.memory[nodes] + EPSILON
        allowed = self.allowed[np.ix_(rows, nodes)]
        if self.bundles[rows[0]] == 1:
            fits = (level >= gpus) & (cpus >= self.cpus[rows, None]) & (memory >= self.memory[rows, None])
            return np.asarray(fits & allowed, np.int64)
        found = np.where(gpus > 0, level // np.maximum(gpus, 1), self.bundles[rows, None]).astype(float)
        found = np.minimum(found, np.floor(cpus / np.maximum(self.cpus[rows, None], EPSILON)))
        found = np.minimum(found, np.floor(memory / np.maximum(self.memory[rows, None], EPSILON)))
        return np.where(allowed, np.clip(found, 0, self.bundles[rows, None]), 0).astype(np.int64)

    def _at(self, node: int) -> Ints:
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
