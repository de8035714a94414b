"""What others do, as functions from State to Plan: FIFO, FIFO with EASY backfill, shortest-first, and two packers.

They share the tables, the test whether a gang fits, and the reservation with the policy; order, packing and who gets a
reservation are theirs. All but FIFO let a later run pass one that does not fit. None of them preempts.
"""

import math
from collections.abc import Callable

import numpy as np

from orchestrator.scheduler import placement
from orchestrator.scheduler.board import Board
from orchestrator.scheduler.decisions import Plan
from orchestrator.scheduler.fragmentation import growth
from orchestrator.scheduler.placement import Place
from orchestrator.scheduler.policy import decide, fill, reserve_first
from orchestrator.scheduler.rules import Rules
from orchestrator.scheduler.tables import Cluster, Ints
from orchestrator.scheduler.values import Option, Run, State

RULES = Rules(slower=math.inf)


class BestFit(Board):
    """A bundle goes where the least GPU is left over; a gang on the fewest nodes."""

    def pack(self, cluster: Cluster, run: Run, options: tuple[Option, ...]) -> list[Place] | None:
        slots = cluster.slots(run.demand, cluster.accepts([option.kind for option in options], run.spot))
        if slots.sum() < run.demand.bundles:
            return None
        if run.demand.bundles > 1:
            return placement.gang(cluster, run.demand, slots)
        nodes = np.flatnonzero(slots)
        return [placement.take(cluster, run.demand, int(nodes[self.score(cluster, run, nodes).argmin()]))]

    def score(self, cluster: Cluster, run: Run, nodes: Ints) -> np.ndarray:
        """Free GPUs: the least is best."""
        return cluster.free[nodes].sum(1)


class RandomFit(BestFit):
    """A bundle goes anywhere."""

    generator = np.random.default_rng(0)

    def score(self, cluster: Cluster, run: Run, nodes: Ints) -> np.ndarray:
        return self.generator.random(len(nodes))


class Gradient(BestFit):
    """Fragmentation-gradient descent as published: every node is scored, by nothing else."""

    def pack(self, cluster: Cluster, run: Run, options: tuple[Option, ...]) -> list[Place] | None:
        if run.demand.bundles > 1:
            return super().pack(cluster, run, options)
        slots = cluster.slots(run.demand, cluster.accepts([option.kind for option in options], run.spot))
        nodes = np.flatnonzero(slots)
        if not len(nodes):
            return None
        score, gpu = growth(self.mix, cluster, run.demand, nodes)
        best = int(score.argmin())
        shared = run.demand.gpus and run.demand.milli < 1000
        return [placement.take(cluster, run.demand, int(nodes[best]), [int(gpu[best])] if shared else None)]


def _by_submission(board: Board) -> Ints:
    return np.argsort(board.queue["submitted"], kind="stable")


def fifo(state: State) -> Plan:
    """Strictly one after another: nobody passes."""
    board = BestFit(state, RULES)
    for row in map(int, _by_submission(board)):
        if not board.start(row):
            break
    return Plan(tuple(board.starts.values()))


def easy(state: State) -> Plan:
    """FIFO with EASY backfill: the first that does not fit has a reservation, others may pass without delaying it."""
    board = BestFit(state, RULES)
    ranks = _by_submission(board)
    reserve_first(board, ranks)
    fill(board, ranks)
    return Plan(tuple(board.starts.values()), more=len(board.starts) >= RULES.starts)


def shortest(state: State) -> Plan:
    """The shortest estimate first."""
    board = BestFit(state, RULES)
    fill(board, np.argsort(board.queue["seconds"], kind="stable"))
    return Plan(tuple(board.starts.values()), more=len(board.starts) >= RULES.starts)


def first_come(kind: type[Board]) -> Callable[[State], Plan]:
    """In the order of submission whoever fits, packed in this way."""

    def policy(state: State) -> Plan:
        board = kind(state, RULES)
        fill(board, _by_submission(board))
        return Plan(tuple(board.starts.values()), more=len(board.starts) >= RULES.starts)

    return policy


POLICIES: dict[str, Callable[[State], Plan]] = {
    "fifo": fifo,
    "fifo + easy": easy,
    "shortest first": shortest,
    "best fit": first_come(BestFit),
    "fgd": first_come(Gradient),
    "orch": decide,
}
