"""How much of the free GPUs the usual runs could not use: fragmentation-gradient descent (Weng et al., ATC'23).

A node's fragmentation for a run is what of its free GPUs that run cannot use: all of it when it does not fit there,
else the GPUs whose free share is too small. Weighted by how often each demand occurs that is the node's fragmentation,
and a run goes where it grows least. Here the usual runs are those that wait and run now, the most frequent of them.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.scheduler.fits import accepted
from orchestrator.scheduler.tables import Bools, Cluster, Floats, Ints
from orchestrator.scheduler.values import ANY, WHOLE, Demand, Run, number_of

CLASSES = 32
"""The most frequent demands that count."""
SCARCITY = 20.0
"""GPUs of fragmentation that it is worth to keep a run off a kind which others, that accept few, want all of."""


@dataclass(frozen=True, eq=False)
class Mix:
    """The usual demands: [classes] arrays, and which nodes each accepts."""

    share: Floats
    gpus: Ints
    milli: Ints
    cpus: Floats
    memory: Floats
    accepts: Bools
    """[classes, nodes]"""
    scarcity: Floats
    """[nodes] share of this kind's GPUs that is wanted by runs which do not accept every kind."""

    @classmethod
    def of(cls, cluster: Cluster, runs: Sequence[Run], counts: Ints) -> "Mix":
        """The mix of `counts[i]` runs like `runs[i]`."""
        with_gpu = [i for i in np.argsort(-counts, kind="stable") if runs[i].demand.gpus]
        scarcity = _scarcity(cluster, [runs[i] for i in with_gpu], counts[with_gpu])
        chosen = [runs[i] for i in with_gpu[:CLASSES]]
        weight = counts[with_gpu[:CLASSES]].astype(float)
        return cls(
            weight / max(weight.sum(), 1.0),
            np.array([run.demand.gpus for run in chosen], np.int64),
            np.array([run.demand.milli for run in chosen], np.int64),
            np.array([run.demand.cpus for run in chosen]),
            np.array([run.demand.memory for run in chosen]),
            accepted(cluster, chosen) if chosen else np.zeros((0, len(cluster.nodes)), bool),
            scarcity,
        )


def _scarcity(cluster: Cluster, runs: Sequence[Run], counts: Ints) -> Floats:
    asked: dict[tuple[str, ...], float] = defaultdict(float)
    for run, count in zip(runs, counts, strict=True):
        asked[run.kinds] += int(count) * run.demand.size
    kinds, inverse = np.unique(cluster.table["kind"], return_inverse=True)
    capacity = np.bincount(inverse, cluster.table["gpus"])
    wanted = np.zeros(len(kinds))
    for accepted_kinds, size in asked.items():
        mine = np.isin(kinds, [number_of(kind) for kind in accepted_kinds])
        if ANY not in accepted_kinds and capacity[mine].sum() and not mine.all():
            wanted[mine] += size * capacity[mine] / capacity[mine].sum()
    return np.minimum(wanted / np.maximum(capacity, 1), 1.0)[inverse]


def fragmentation(mix: Mix, free: Ints, cpus: Floats, memory: Floats, nodes: Ints) -> Floats:
    """[...] milli that the mix cannot use; `free` is [..., GPUs], the others [...]."""
    enough = free[..., None, :] >= mix.milli[:, None]
    hosts = (enough.sum(-1) >= mix.gpus) & (cpus[..., None] >= mix.cpus) & (memory[..., None] >= mix.memory)
    hosts &= np.moveaxis(mix.accepts[:, nodes], 0, -1)
    total = free.sum(-1)[..., None]
    usable = np.where(hosts, (free[..., None, :] * enough).sum(-1), 0)
    found: Floats = ((total - usable) * mix.share).sum(-1)
    return found


def growth(mix: Mix, cluster: Cluster, demand: Demand, nodes: Ints) -> tuple[Floats, Ints]:
    """([nodes] milli by which fragmentation grows with a bundle there, [nodes] the best GPU of a shared one)."""
    free, cpus, memory = cluster.free[nodes], cluster.cpus[nodes], cluster.memory[nodes]
    before = fragmentation(mix, free, cpus, memory, nodes)
    cpus, memory = cpus - demand.cpus, memory - demand.memory
    if demand.milli == WHOLE or not demand.gpus:
        idle = free == WHOLE
        after = np.where(idle & (np.cumsum(idle, 1) <= demand.gpus), 0, free)
        return fragmentation(mix, after, cpus, memory, nodes) - before, np.zeros(len(nodes), np.int64)
    row, gpu = np.nonzero((free >= demand.milli) & ~_repeated(free))
    left = free[row]
    left[np.arange(len(row)), gpu] -= demand.milli
    cost = np.full(free.shape, np.inf)
    cost[row, gpu] = fragmentation(mix, left, cpus[row], memory[row], nodes[row]) - before[row]
    best = (cost + free * 1e-3).argmin(1)  # of equal ones the fullest GPU
    return cost[np.arange(len(nodes)), best], best


def _repeated(free: Ints) -> Bools:
    """[nodes, GPUs] whether a GPU before it on the node has as much free: it would score the same."""
    same = free[:, :, None] == free[:, None, :]
    return np.asarray(np.tril(same, -1).any(2))
