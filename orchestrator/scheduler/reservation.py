"""The earliest time at which a run that has waited long enough fits, and what is kept for it until then: EASY backfill.

Lifka, "The ANL/IBM SP scheduling system" (1995): runs behind the one with the reservation may start when they end
before it begins, or need nothing of what it will take.
"""

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from orchestrator.scheduler.series import parts_of
from orchestrator.scheduler.tables import EPSILON, PART, Bools, Cluster, Floats, Ints
from orchestrator.scheduler.values import WHOLE, Demand, Running


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
        if not demand.gpus or demand.milli < WHOLE:
            return self._searched(demand, allowed)
        slots = self.cluster.slots(demand, allowed)
        total = slots.sum() + np.cumsum(self._gained(demand, allowed, slots))
        first = int(np.searchsorted(total, demand.bundles))
        return float(self.ends[first]) if first < len(total) else math.inf

    def _gained(self, demand: Demand, allowed: Bools, slots: Ints) -> Ints:
        """[bundles] how many more fit when this one has gone, where whole GPUs are needed; `slots` fit now."""
        cluster, order, begins = self.cluster, self._by_node, self._begins
        nodes = self.nodes[order]
        found = (cluster.level(WHOLE)[nodes] + _running_sum(self._idle()[order], begins)) // demand.gpus
        if demand.cpus:
            cpus = cluster.cpus[nodes] + _running_sum(self.parts["cpus"][order], begins)
            found = np.minimum(found, np.floor((cpus + EPSILON) / demand.cpus))
        if demand.memory:
            memory = cluster.memory[nodes] + _running_sum(self.parts["memory"][order], begins)
            found = np.minimum(found, np.floor((memory + EPSILON) / demand.memory))
        found = np.where(allowed[nodes], np.clip(found, 0, demand.bundles), 0).astype(np.int64)
        gained = np.zeros(len(order), np.int64)
        gained[order] = found - np.where(begins, slots[nodes], np.roll(found, 1))
        return gained

    @cached_property
    def _by_node(self) -> Ints:
        """Rows of the bundles by node, and within a node by end."""
        return np.argsort(self.nodes, kind="stable")

    @cached_property
    def _begins(self) -> Bools:
        """Where in that order another node begins."""
        return _changes(self.nodes[self._by_node])

    @cached_property
    def _shares(self) -> tuple[Ints, Ints, Ints, Bools]:
        """For each GPU of each bundle, by GPU and then by end: (bundle, cell, milli), and where another GPU begins."""
        row, gpu = np.nonzero(self.milli)
        order = np.argsort(self.cells[row, gpu], kind="stable")
        row, gpu = row[order], gpu[order]
        cells = self.cells[row, gpu]
        return row, cells, self.milli[row, gpu].astype(np.int64), _changes(cells)

    def _idle(self) -> Ints:
        """[bundles] GPUs that are wholly free when this one has gone, and were not before."""
        row, cells, milli, begins = self._shares
        after = self.cluster.free.ravel()[cells] + _running_sum(milli, begins)
        return np.bincount(row[(after >= WHOLE) & (after - milli < WHOLE)], minlength=len(self.nodes))

    def _searched(self, demand: Demand, allowed: Bools) -> float:
        times = np.unique(self.ends)

        def fits(i: int) -> bool:
            return bool(self.by(times[i]).slots(demand, allowed).sum() >= demand.bundles)

        low, high = 0, len(times) - 1
        if high < 0 or not fits(high):
            return math.inf
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(middle) else (middle + 1, high)
        return float(times[low])


def _changes(values: Ints) -> Bools:
    """Where a value differs from the one before it."""
    return np.concatenate([[True], values[1:] != values[:-1]])[: len(values)]


def _running_sum(values: Floats | Ints, begins: Bools) -> Floats:
    """Sums from the beginning of each group up to and with each value."""
    sums = np.cumsum(values)
    before = (sums - values)[begins]
    return np.asarray(sums - before[np.cumsum(begins) - 1])


def spare(now: Cluster, then: Cluster) -> Cluster:
    """What is free now and still there when the reservation, already taken from `then`, begins."""
    found = now.copy()
    found.free = np.minimum(now.free, then.free)
    found.cpus, found.memory = np.minimum(now.cpus, then.cpus), np.minimum(now.memory, then.memory)
    return found
