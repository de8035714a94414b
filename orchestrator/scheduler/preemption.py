"""Who yields: whole gangs, of a lower class or borrowing, or whose delay costs less than the wait that it saves.

Nodes are chosen by the work that is lost for each bundle gained there; then every victim that is not needed is given
back, the dearest first.
"""

from typing import NamedTuple

import numpy as np

from orchestrator.scheduler.board import Board, preferred
from orchestrator.scheduler.decisions import Preempt
from orchestrator.scheduler.tables import Bools, Cluster, Floats
from orchestrator.scheduler.values import Demand, Option, Run


class Yield(NamedTuple):
    """Running runs (by row) that make room, and the cluster without them."""

    victims: list[int]
    cluster: Cluster


def preempt_for(board: Board, row: int) -> bool:
    """Make room for a queued run where that is right."""
    run = board.state.queued[row]
    if not board.usage.may(run) or _delays_a_reservation(board, row):
        return False
    entitled = _entitled(board, run)
    for number, options in enumerate(preferred(run, board.now, board.rules)):
        allowed = board.whole.accepts([option.kind for option in options], run.spot)
        found = cheapest(board, run.demand, allowed, entitled) if entitled.any() else None
        if found is None and number == 0:
            found = _traded(board, run, options, allowed)
        if found:
            _yield(board, row, options, found)
            return True
    return False


def _delays_a_reservation(board: Board, row: int) -> bool:
    """Whether another run of at least its class holds one, which begins before this run would have ended."""
    run = board.state.queued[row]
    holders = [board.state.queued[holder] for holder in board.reservations if holder != row]
    late = board.now + run.seconds + board.rules.resume > board.reserved_at
    return late and any(holder.priority >= run.priority for holder in holders)


def _available(board: Board) -> Bools:
    running = board.running
    found = (running["checkpointable"] > 0) & (running["yielding"] == 0) & np.isfinite(running["started"])
    found[list(board.preemptions)] = False
    return np.asarray(found & (running["preemptions"] < board.rules.preempt_limit))


def _entitled(board: Board, run: Run) -> Bools:
    """[running] whether the run may take its place whatever it costs: a lower class, or borrowed from an owner."""
    running = board.running
    lower = running["priority"] < run.priority
    if board.usage.owns(run) and board.state.quotas:
        same = running["priority"] == run.priority
        lower = lower | (same & board.usage.borrowers(running))
    return lower & _available(board)


def _traded(board: Board, run: Run, options: tuple[Option, ...], allowed: Bools) -> Yield | None:
    """Runs of the same class whose delay, all together, is small beside the wait that is saved."""
    rules, running = board.rules, board.running
    if not rules.preempt_trade or not board.usage.owns(run):
        return None
    seconds = max(option.seconds for option in options) + rules.resume
    may = _available(board) & (running["priority"] <= run.priority)
    may &= board.ends - board.now >= rules.preempt_ratio * seconds
    may &= board.now - running["started"] >= rules.preempt_min_run
    if not may.any():
        return None
    saved = board.releases.earliest(run.demand, allowed) - board.now
    if saved < rules.preempt_trade * seconds:
        return None
    found = cheapest(board, run.demand, allowed, may)
    return found if found and saved >= rules.preempt_trade * seconds * len(found.victims) else None


def lost_work(board: Board) -> Floats:
    """[running] GPU-seconds since the last checkpoint, and what it costs to come back."""
    since = np.maximum(board.now - board.running["saved"], 0.0)
    return board.running["size"] * (since + board.rules.resume)


def cheapest(board: Board, demand: Demand, allowed: Bools, may: Bools) -> Yield | None:
    """Victims among those who may yield, with little work lost and none without need; None when they do not suffice."""
    releases, cost = board.releases, lost_work(board)
    bundles = np.flatnonzero(may[releases.owner])
    gain = releases.after(bundles).slots(demand, allowed)
    have = releases.cluster.slots(demand, allowed)
    if gain.sum() < demand.bundles or have.sum() >= demand.bundles:  # who fits as it is waits for a reservation
        return None
    price = np.bincount(releases.nodes[bundles], cost[releases.owner[bundles]], minlength=len(gain))
    price[have >= gain] = 0.0
    order = np.argsort(np.where(gain > 0, price / np.maximum(gain, 1), np.inf), kind="stable")
    nodes = order[: int(np.searchsorted(np.cumsum(gain[order]), demand.bundles)) + 1]
    victims = np.unique(releases.owner[bundles[np.isin(releases.nodes[bundles], nodes)]])
    return _pruned(board, demand, allowed, [int(v) for v in victims[np.argsort(-cost[victims], kind="stable")]])


def _pruned(board: Board, demand: Demand, allowed: Bools, victims: list[int]) -> Yield:
    """Give back, the dearest first, whom the run does not need."""

    def without(rows: list[int]) -> Cluster:
        return board.releases.after(np.flatnonzero(np.isin(board.releases.owner, rows)))

    kept = list(victims)
    for victim in victims:
        fewer = [row for row in kept if row != victim]
        if without(fewer).slots(demand, allowed).sum() >= demand.bundles:
            kept = fewer
    return Yield(kept, without(kept))


def _yield(board: Board, row: int, options: tuple[Option, ...], found: Yield) -> None:
    run, lost = board.state.queued[row], lost_work(board)
    places = board.pack(found.cluster, run, options)
    assert places is not None, "the victims were chosen so that it fits"
    for victim in found.victims:
        entry = board.state.running[victim]
        reason = f"its place goes to {run.id}"
        board.preemptions[victim] = Preempt(entry.run.id, board.rules.save_within, float(lost[victim]), reason)
        board.usage.add(entry.run, -1.0)
    after = tuple(board.state.running[victim].run.id for victim in found.victims)
    board.whole.take_all(run.demand, places)
    if board.rest is not board.whole:
        board.rest.take_all(run.demand, places)
    board.begin(row, options, places, after)
