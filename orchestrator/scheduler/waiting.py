"""Why each run waits, in words, and when it is expected to start.

The expected start of the run with the reservation is the reservation's. The others are let start in the order of the
queue, each when enough GPUs of a kind that it accepts have been given back, if all runs end as estimated and no other
run comes. Smaller runs may start earlier, in gaps that this count does not see.
"""

import heapq
import math

from orchestrator.scheduler.board import Board
from orchestrator.scheduler.decisions import Wait
from orchestrator.scheduler.tables import Ints
from orchestrator.scheduler.values import ANY, WHOLE, Run


class _Pool:
    """GPUs of one kind: how many are free at `time`, and when others come back."""

    def __init__(self, now: float) -> None:
        self.time, self.free, self.total = now, 0.0, 0.0
        self.back: list[tuple[float, float]] = []

    def start(self, size: float, seconds: float) -> float:
        """Let a run start as early as it can; when that is."""
        while self.free < size and self.back:
            self.time, size_back = max(self.time, self.back[0][0]), heapq.heappop(self.back)[1]
            self.free += size_back
        if self.free < size:
            return math.inf
        self.free -= size
        heapq.heappush(self.back, (self.time + seconds, size))
        return self.time


def explain(board: Board, ranks: Ints) -> dict[str, Wait]:
    """By run, in the order of the queue: every run that neither starts nor is given up."""
    pools, found = _pools(board), dict[str, Wait]()
    for place, row in enumerate(map(int, ranks)):
        if row in board.starts or row in board.given_up:
            continue
        run = board.state.queued[row]
        expected = _expected(pools, run) if board.ever(row) else math.inf
        if row in board.reservations:
            expected = board.reservations[row].at
        found[run.id] = Wait(run.id, _reason(board, row, place, expected), expected)
    return found


def _expected(pools: dict[str, _Pool], run: Run) -> float:
    accepted = [pool for kind, pool in pools.items() if kind in run.kinds or ANY in run.kinds]
    roomy = [pool for pool in accepted if pool.total >= run.demand.size]
    if not roomy:
        return math.inf
    pool = min(roomy, key=lambda pool: (pool.free < run.demand.size, pool.back[0][0] if pool.back else pool.time))
    return pool.start(run.demand.size, run.seconds)


def _pools(board: Board) -> dict[str, _Pool]:
    kind_of = {node.name: node.kind for node in board.state.nodes if math.isinf(node.leaves_at)}
    pools = {kind: _Pool(board.now) for kind in kind_of.values()}
    for node, free in zip(board.state.nodes, board.whole.free, strict=True):
        if node.name in kind_of:
            pools[node.kind].free += float(free.sum()) / WHOLE
            pools[node.kind].total += len(node.free)
    for entry, end in zip(board.state.running, board.ends, strict=True):
        kind = kind_of.get(entry.placements[0].node) if entry.placements else None
        if kind is not None:
            pools[kind].back.append((float(end), entry.run.demand.size))
    for pool in pools.values():
        heapq.heapify(pool.back)
    return pools


def _reason(board: Board, row: int, ahead: int, expected: float) -> str:
    run = board.state.queued[row]
    wanted = _wanted(run)
    if row in board.reservations:
        return f"waits for {wanted}: places on {_places(board, row)} are kept for it"
    if not board.usage.may(run):
        return f"quota: {board.usage.words(run)}"
    if math.isinf(expected):
        return f"these nodes could never hold it, even idle: it needs {wanted}"
    if board.fits_rest.possible()[board.shape[row]]:
        return f"a place is free for {wanted}, and a faster or more fitting kind is expected"
    if board.fits.possible()[board.shape[row]] and board.reservations:
        return f"fits now, and would delay {next(iter(board.reservations.values())).run}, which has a reservation"
    return f"waits for {wanted}: not free now, {ahead} runs are ahead of it"


def _wanted(run: Run) -> str:
    demand, kinds = run.demand, "any kind" if ANY in run.kinds else " or ".join(run.kinds)
    if not demand.gpus:
        each = f"{demand.cpus:g} CPU cores"
    elif demand.milli < WHOLE:
        each = f"{demand.milli / WHOLE:g} of a GPU of {kinds}"
    else:
        each = f"{demand.gpus} GPU{'s' if demand.gpus > 1 else ''} of {kinds}"
    return f"{demand.bundles} x {each}" if demand.bundles > 1 else each


def _places(board: Board, row: int) -> str:
    nodes = list(dict.fromkeys(place.node for place in board.reservations[row].placements))
    return ", ".join(nodes[:4]) + (f" and {len(nodes) - 4} more" if len(nodes) > 4 else "")
