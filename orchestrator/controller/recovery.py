"""Whether and when an owner whose places were lost gets others (pure).

Losing a process is no failure of the work: it goes on elsewhere from its last checkpoint. But nothing is started again
and again: each loss waits longer than the one before, and a driver that dies in every place takes its run with it.
"""

from collections.abc import Sequence
from typing import NamedTuple

from orchestrator.store.records import Allocation

MAX_LOSSES = 5
"""In a row, of a driver that died on a node that lives: it is probably the work itself."""
FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 600.0

CAUSES = {
    "finished": "it ended by itself, or needs other places for what comes next",
    "yielded": "it saved a checkpoint and made room",
    "evicted": "it was told to make room, did not, and was stopped",
    "node": "its node went away",
    "unplaced": "Ray had no room where the queue saw some",
    "lost": "its process died",
    "silent": "it gave no sign of life",
    "stopped": "somebody stopped it",
}
_AGAIN_AT_ONCE = {"finished", "yielded", "evicted", "stopped"}
_COUNTED = {"lost", "silent"}


class Next(NamedTuple):
    """What follows from the places that an owner has had."""

    at: float
    """From when on it may be placed again."""
    give_up: str | None = None
    """Why it is not placed again."""


def after(ended: Sequence[Allocation]) -> Next:
    """`ended`: all that the owner has had, the oldest first; their times are the controller's."""
    losses = _losses(ended)
    if not losses:
        return Next(0.0)
    counted = [loss for loss in losses if loss.cause in _COUNTED]
    if len(counted) >= MAX_LOSSES:
        return Next(0.0, f"its driver was lost {len(counted)} times in a row; last: {counted[-1].reason}")
    wait = min(FIRST_WAIT_S * 2 ** (len(losses) - 1), LONGEST_WAIT_S)
    return Next((losses[-1].ended or 0.0) + wait)


def _losses(ended: Sequence[Allocation]) -> list[Allocation]:
    """The last ones in a row that were lost."""
    found: list[Allocation] = []
    for allocation in reversed(ended):
        if allocation.cause in _AGAIN_AT_ONCE:
            break
        found.insert(0, allocation)
    return found
