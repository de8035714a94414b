"""The policy: one pure function from the state of a cluster and its queue to decisions.

    plan = decide(State(now, nodes, queued, running, quotas))

It is called whenever something has changed: a run came, ended or yielded, a node came or left. It keeps nothing from
one call to the next. Same values, same plan.
"""

from functools import partial

import numpy as np

from orchestrator.scheduler import queue
from orchestrator.scheduler.board import Board
from orchestrator.scheduler.decisions import GiveUp, Plan, Preempt
from orchestrator.scheduler.preemption import lost_work, preempt_for
from orchestrator.scheduler.rules import Rules
from orchestrator.scheduler.tables import Bools, Ints
from orchestrator.scheduler.values import State
from orchestrator.scheduler.waiting import explain

DEFAULT = Rules()


def decide(state: State, rules: Rules = DEFAULT) -> Plan:
    """Who starts where, who yields, what is kept for whom, who is given up; and why the others wait."""
    board = Board(state, rules)
    _leave(board)
    if not state.queued or not state.nodes:
        return _plan(board, np.zeros(0, np.int64))
    _give_up(board)
    ranks = queue.order(board.queue, state.now, board.usage.levels(), rules)
    aged = queue.aged(board.queue, state.now, rules)
    reserve_first(board, aged[board.usage.all_may()[aged]])
    fill(board, ranks)
    _make_room(board, ranks)
    return _plan(board, ranks)


def _plan(board: Board, ranks: Ints) -> Plan:
    return Plan(
        tuple(board.starts.values()),
        tuple(board.preemptions.values()),
        tuple(board.reservations.values()),
        tuple(board.given_up.values()),
        len(board.starts) >= board.rules.starts,
        partial(explain, board, ranks),
    )


def _leave(board: Board) -> None:
    """Runs on nodes that go away save and leave in time."""
    times = board.whole.table["leaves_at"]
    leaving = {board.state.nodes[row].name: float(times[row]) for row in _rows(np.isfinite(times))}
    for row, entry in enumerate(board.state.running if leaving else ()):
        ends = [leaving[place.node] for place in entry.placements if place.node in leaving]
        if ends and not entry.yielding:
            within = max(min(board.rules.save_within, min(ends) - board.now), 0.0)
            lost = float(lost_work(board)[row])
            board.preemptions[row] = Preempt(entry.run.id, within, lost, "its node goes away")
            board.usage.add(entry.run, -1.0)


def _give_up(board: Board) -> None:
    for row in _rows(queue.expired(board.queue, board.now)):
        run = board.state.queued[row]
        waited = board.now - run.waiting_since
        reason = f"it has waited {waited:.0f} s, and may wait {run.max_queue:.0f} s"
        board.given_up[row] = GiveUp(run.id, reason)


def reserve_first(board: Board, rows: Ints) -> None:
    """Start these in their order; the first that does not fit gets a reservation, and nobody after it."""
    for row in map(int, rows):
        if len(board.starts) >= board.rules.starts:
            return
        if row not in board.given_up and not board.start(row) and board.reserve(row):
            return


def fill(board: Board, ranks: Ints) -> None:
    """Start in the order of the queue who fits, and would not delay the reservation."""
    at = 0
    while at < len(ranks) and len(board.starts) < board.rules.starts:
        candidates = at + np.flatnonzero(board.open(ranks[at:]))
        started = next((int(place) for place in candidates if board.start(int(ranks[place]))), None)
        if started is None:
            return
        at = started + 1


def _make_room(board: Board, ranks: Ints) -> None:
    """Ask others to yield for the first of those who still wait; one a decision."""
    if not board.running["checkpointable"].any():
        return
    waits = board.now - board.queue["since"] >= board.rules.preempt_after
    waits[[*board.starts, *board.given_up, *board.reservations]] = False
    first = ranks[waits[ranks]][: board.rules.preempt_tries]
    for row in [*board.reservations, *map(int, first)]:
        if preempt_for(board, row):
            return


def _rows(chosen: Bools) -> list[int]:
    return [int(row) for row in np.flatnonzero(chosen)]
