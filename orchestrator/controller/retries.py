"""Whether a stage is tried again after its process died: a budget for each cause (pure).

What the stage itself reports (bad rows, a gate, a full disk) is not tried again. What the cluster does to it (its node
went away, it had to make room) is, for as long as it takes, with longer and longer pauses.
"""

from collections.abc import Sequence
from typing import NamedTuple

from orchestrator.errors import Cause, OrchError, WorkerDiedError
from orchestrator.store.records import Event

FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 600.0


class Budget(NamedTuple):
    """What a cause is worth."""

    retries: int | None
    """None: without limit."""
    advice: str
    """What the user can do once they are used up."""


BUDGETS: dict[Cause, Budget] = {
    "preempted": Budget(None, ""),
    "node": Budget(None, ""),
    "gpu_memory": Budget(2, "give it accelerators with more memory; `orch plan` shows what needs how much"),
    "host_memory": Budget(2, "give the stage more main memory, or run fewer things on its node"),
    "hang": Budget(
        2, "its stacks are in the events of kind `hung` and in its log; look at the network between its GPUs"
    ),
    "unknown": Budget(3, "read its log and the kernel's (`dmesg`) on its node; then `orch resume RUN`"),
}


class Attempt(NamedTuple):
    """One that died."""

    cause: Cause
    node: str | None = None
    """Where, in the words of whoever placed it."""


class Again(NamedTuple):
    """It is tried again."""

    wait_s: float
    avoid: str | None = None
    """A node on which it has hung twice: something is wrong with it."""


class GiveUp(NamedTuple):
    """It is not tried again."""

    error: OrchError
    """With what the user can do."""


def after(earlier: Sequence[Attempt], error: OrchError) -> Again | GiveUp:
    """What follows from an attempt that ended with this error, after those that died before it."""
    if not isinstance(error, WorkerDiedError):
        return GiveUp(error)
    attempts = [*earlier, Attempt(error.cause, error.node)]
    alike = sum(attempt.cause == error.cause for attempt in attempts)
    retries, advice = BUDGETS[error.cause]
    if retries is not None and alike > retries:
        times = f"{alike} times" if alike > 1 else "once"
        message = f"{error.message}\nit died of the same cause {times}, and is not tried again"
        return GiveUp(WorkerDiedError(message, next_step=advice, cause=error.cause, node=error.node))
    return Again(min(FIRST_WAIT_S * 2 ** min(alike - 1, 20), LONGEST_WAIT_S), _suspect(attempts))


def earlier(events: Sequence[Event], stage: str) -> list[Attempt]:
    """The attempts of a stage that died, by the events of its run, since it last ended: a resumed run begins anew."""
    found: list[Attempt] = []
    for event in events:
        if event.stage == stage and event.kind in ("stage.failed", "stage.cancelled", "stage.succeeded"):
            found.clear()
        elif event.stage == stage and event.kind == "stage.pending" and "cause" in event.data:
            found.append(Attempt(event.data["cause"], event.data.get("node")))
    return found


def _suspect(attempts: Sequence[Attempt]) -> str | None:
    *before, last = attempts
    known = last.cause == "hang" and last.node is not None
    return last.node if known and last in before else None
