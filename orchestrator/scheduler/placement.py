"""Where a gang goes: whole or not at all, on the fewest nodes, where it leaves the least fragmentation.

A single bundle goes where fragmentation grows least, not counting kinds that others need more; then where the least is
free, so that whole nodes and whole NVLink islands stay free. A gang of several bundles goes on the fewest nodes.
"""

from collections.abc import Sequence

import numpy as np

from orchestrator.scheduler.fragmentation import SCARCITY, Mix, growth
from orchestrator.scheduler.tables import Bools, Cluster, Ints
from orchestrator.scheduler.values import WHOLE, Demand

CANDIDATES = 64
"""Nodes that are scored; the fullest of those that fit."""
ISLAND = 0.05
"""GPUs of fragmentation that breaking an idle island counts as."""
Place = tuple[int, list[int]]
"""A node's row and the indices of its GPUs."""


def pack(cluster: Cluster, demand: Demand, allowed: Bools, mix: Mix, flexible: bool = False) -> list[Place] | None:
    """A place for every bundle, taken from `cluster`; None, and nothing taken, when the gang does not fit.

    A `flexible` run accepts every kind: it keeps off those that others need.
    """
    slots = cluster.slots(demand, allowed)
    if slots.sum() < demand.bundles:
        return None
    if demand.bundles == 1:
        return [_single(cluster, demand, np.flatnonzero(slots), mix, flexible)]
    return gang(cluster, demand, slots)


def _single(cluster: Cluster, demand: Demand, nodes: Ints, mix: Mix, flexible: bool) -> Place:
    nodes = _fullest(cluster, nodes)
    if len(nodes) == 1:
        return take(cluster, demand, int(nodes[0]))
    score, gpu = growth(mix, cluster, demand, nodes)
    score = score + 1e-3 * cluster.free[nodes].sum(1)
    if flexible and demand.gpus:
        score = score + SCARCITY * WHOLE * mix.scarcity[nodes]
    score = score + ISLAND * WHOLE * (_idle_islands(cluster, nodes) if demand.gpus else 0)
    best = int(score.argmin())
    shared = demand.gpus and demand.milli < WHOLE
    return take(cluster, demand, int(nodes[best]), [int(gpu[best])] if shared else None)


def _fullest(cluster: Cluster, nodes: Ints) -> Ints:
    if len(nodes) <= CANDIDATES:
        return nodes
    order = np.argsort(cluster.free[nodes].sum(1), kind="stable")
    return nodes[order[:CANDIDATES]]


def _idle_islands(cluster: Cluster, nodes: Ints) -> Ints:
    """[nodes] 1 where only an idle island is left to be broken."""
    size, width = cluster.table["island"][nodes], cluster.free.shape[1]
    island = np.arange(width)[None, :] // size[:, None]
    idle = cluster.free[nodes] == WHOLE
    count = np.stack([(idle & (island == i)).sum(1) for i in range(width)], 1)
    partial = ((count > 0) & (count < size[:, None])).any(1) | (cluster.free[nodes] % WHOLE > 0).any(1)
    return np.asarray(~partial, np.int64)


def gang(cluster: Cluster, demand: Demand, slots: Ints) -> list[Place]:
    """The node that holds all that is left and is fullest; else the one that holds most."""
    places: list[Place] = []
    free, slots = cluster.free.sum(1), slots.copy()
    while (left := demand.bundles - len(places)) > 0:
        enough = slots >= left
        if enough.any():
            node = int(np.where(enough, free, np.iinfo(np.int64).max).argmin())
        else:
            node = int(np.lexsort((free, -slots))[0])
        places += [take(cluster, demand, node) for _ in range(min(left, int(slots[node])))]
        slots[node] = 0
    return places


def take(cluster: Cluster, demand: Demand, node: int, gpus: Sequence[int] | None = None) -> Place:
    chosen = list(gpus) if gpus is not None else choose_gpus(cluster, demand, node)
    cluster.take(demand, node, chosen)
    return node, chosen


def choose_gpus(cluster: Cluster, demand: Demand, node: int) -> list[int]:
    """GPUs of a node for a bundle: the fullest island that holds it, else from the emptiest islands on."""
    free = cluster.free[node]
    if demand.milli < WHOLE:
        fitting = [int(g) for g in np.flatnonzero(free >= demand.milli)]
        return sorted(fitting, key=lambda gpu: (free[gpu], gpu))[: demand.gpus]
    size = int(cluster.table["island"][node])
    islands: dict[int, list[int]] = {}
    for gpu in np.flatnonzero(free >= WHOLE):
        islands.setdefault(int(gpu) // size, []).append(int(gpu))
    holding = [gpus for gpus in islands.values() if len(gpus) >= demand.gpus]
    if holding:
        return min(holding, key=len)[: demand.gpus]
    order = sorted(islands.values(), key=len, reverse=True)
    return [gpu for gpus in order for gpu in gpus][: demand.gpus]
