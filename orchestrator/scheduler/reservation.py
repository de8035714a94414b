"""The earliest time at which a run that has waited long enough fits, and what is kept for it until then: EASY backfill.

Lifka, "The ANL/IBM SP scheduling system" (1995): runs behind the one with the reservation may start when they end
before it begins, or need nothing of what it will take.
"""

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from orchestrator.scheduler.series import parts_of
from orchestrator.scheduler.tables import PART, Bools, Cluster, Floats, Ints
from orchestrator.scheduler.values import Demand, Running


class Releases:
    """What the running runs will give back, in the order of their ends."""

    def __init__(self, cluster: Cluster, running: Sequence[Running], ends: Floats) -> None:
        self.cluster = cluster
        rows, counts = parts_of(running)
        parts = rows.reshape(-1).view(PART)
        owner = np.repeat(np.arange(len(running)), counts)
        nodes = cluster.find(parts["node"])
        known = np.flatnonzero(nodes >= 0)
        order = known[np.argsort(ends[owner[known]], kind="stable")]
        self.parts, self.nodes, self.owner = parts[order], nodes[order], owner[order]
        """One row for each bundle: what it holds, the row of its node, the row of its run."""
        self.ends = ends[self.owner]

    @cached_property
    def milli(self) -> Floats:
        """[bundles, GPUs] what a bundle holds of each GPU of its node."""
        bits = (self.parts["gpus"][:, None] >> np.arange(self.cluster.free.shape[1])) & 1
        found: Floats = bits * self.parts["milli"][:, None]
        return found

    @cached_property
    def cells(self) -> Ints:
        """[bundles, GPUs] the number of each GPU in the whole cluster."""
        width = self.cluster.free.shape[1]
        return np.asarray(self.nodes[:, None] * width + np.arange(width))

    def after(self, gone: Ints | slice) -> Cluster:
        """The cluster when these bundles have gone."""
        found, nodes = self.cluster.copy(), self.nodes[gone]
        height, width = found.free.shape
        back = np.bincount(self.cells[gone].ravel(), self.milli[gone].ravel(), minlength=height * width).reshape(
            height, width
        )
        found.free = np.minimum(found.free + back.astype(found.free.dtype), found.size)
        found.cpus += np.bincount(nodes, self.parts["cpus"][gone], minlength=height)
        found.memory += np.bincount(nodes, self.parts["memory"][gone], minlength=height)
        return found

    def by(self, time: float) -> Cluster:
        """The cluster when all that end by `time` have gone."""
        return self.after(slice(0, int(np.searchsorted(self.ends, time, side="right"))))

    def earliest(self, demand: Demand, allowed: Bools) -> float:
        """The first end of a run at which the gang fits; infinite when it would not fit even alone."""
        times = np.unique(self.ends)

        def fits(i: int) -> bool:
            return bool(self.by(times[i]).slots(demand, allowed).sum() >= demand.bundles)

        low, high, step = 0, 0, 1
        while high < len(times) and not fits(high):
            low, high, step = high + 1, min(high + step, max(len(times) - 1, high + 1)), 4 * step
        if high >= len(times):
            return math.inf
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(middle) else (middle + 1, high)
        return float(times[low])


def spare(now: Cluster, then: Cluster) -> Cluster:
    """What is free now and still there when the reservation, already taken from `then`, begins."""
    found = now.copy()
    found.free = np.minimum(now.free, then.free)
    found.cpus, found.memory = np.minimum(now.cpus, then.cpus), np.minimum(now.memory, then.memory)
    return found
