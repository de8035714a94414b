"""A cluster's nodes as the queue's policy wants them (pure): what is free of each."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from orchestrator.clusters.cluster import Cluster, NodePool
from orchestrator.clusters.match import match
from orchestrator.ray.remote import Seen, SeenNode
from orchestrator.scheduler.values import WHOLE, Node
from orchestrator.store.records import Allocation, Place


class Capacity(NamedTuple):
    """Nodes that runs may be placed on, and why others are left out."""

    nodes: list[Node]
    left_out: list[str]


def capacity(seen: Seen, cluster: Cluster, held: Sequence[Allocation]) -> Capacity:
    """What `held` (ours), and the placement groups of others, leave over."""
    nodes, left_out = list[Node](), list[str]()
    for node in seen.nodes:
        pool, reason = match(cluster.nodes, node.labels, node.resources)
        if pool is None and cluster.nodes:
            left_out.append(f"node {node.address} is in no pool of cluster {cluster.name!r}: {reason}")
        else:
            nodes.append(_node(node, pool, held, _others(seen, held, node.id)))
    return Capacity(nodes, left_out)


def _node(node: SeenNode, pool: NodePool | None, held: Sequence[Allocation], others: dict[str, float]) -> Node:
    free, cpus = [WHOLE] * int(node.resources.get("GPU", 0)), node.resources.get("CPU", 0.0) - others["CPU"]
    for allocation in held:
        for place in allocation.placements:
            if place.node == node.id:
                cpus -= allocation.bundle.num_cpus
                _take(free, place, allocation.bundle.num_gpus)
    for _ in range(round(others["GPU"])):  # which ones others have is not known: from the end, as ours begin in front
        _take_last(free)
    return Node(
        name=node.id,
        kind=(pool.accelerator or "") if pool else "",
        free=tuple(free),
        cpus=cpus,
        island=pool.island if pool else 0,
        spot=pool.spot if pool else False,
        leaves_at=float("inf") if node.leaves_at is None else node.leaves_at,
    )


def _take(free: list[int], place: Place, num_gpus: float) -> None:
    share = WHOLE if num_gpus >= 1 else round(WHOLE * num_gpus)
    for gpu in place.gpus:
        if gpu < len(free):
            free[gpu] -= share


def _take_last(free: list[int]) -> None:
    idle = [index for index, milli in enumerate(free) if milli == WHOLE]
    if idle:
        free[idle[-1]] = 0


def _others(seen: Seen, held: Sequence[Allocation], node: str) -> dict[str, float]:
    """What groups that are not ours, or not any more, hold of a node."""
    ours, found = {allocation.name for allocation in held}, defaultdict[str, float](float)
    for group in (*seen.groups, *seen.foreign):
        for bundle in group.bundles if group.name not in ours else ():
            if bundle.node == node:
                for kind, amount in bundle.resources.items():
                    found[kind] += amount
    return found
