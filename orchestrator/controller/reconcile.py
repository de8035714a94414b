"""What the store wants against what a cluster runs (pure), level-triggered: it needs no memory of what happened.

Only a cluster that has answered is compared: not reaching one says nothing about what runs there.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orchestrator.controller.tenancy import LEASE_S
from orchestrator.ray.remote import Seen
from orchestrator.store.records import Allocation

SILENT_S = LEASE_S + 15.0
"""A driver that has given no sign of life for so long has ended itself; its places are free for others."""
BEGIN_S = 120.0
"""A driver gives its first sign of life within this."""
GATEWAY = "gateway-"
"""Of the names of gateways, which hold no places."""


@dataclass(frozen=True)
class Lost:
    """Places whose driver is gone, or must be stopped."""

    allocation: Allocation
    cause: str
    """A word of `recovery.CAUSES`."""
    reason: str


def lost(live: Iterable[Allocation], seen: Seen, now: float) -> Iterator[Lost]:
    """`live`: of this cluster, read before it was seen; `now` by the database's clock."""
    nodes, actors = {node.id for node in seen.nodes}, set(seen.actors)
    for allocation in live:
        found = _trouble(allocation, nodes, actors, now)
        if found:
            yield Lost(allocation, *found)


def unknown(live: Iterable[Allocation], seen: Seen) -> list[str]:
    """Names of actors and groups of this store that nothing stands behind any more."""
    known = {allocation.name for allocation in live}
    names = {*seen.actors, *(group.name for group in seen.groups)}
    return sorted(name for name in names - known if not name.startswith(GATEWAY))


def _trouble(allocation: Allocation, nodes: set[str], actors: set[str], now: float) -> tuple[str, str] | None:
    gone = [place.node for place in allocation.placements if place.node not in nodes]
    if gone:
        return "node", f"its node went away ({gone[0][:12]})"
    if allocation.name not in actors:
        return ("lost", "its process died") if allocation.begun else ("lost", "its process never began")
    if allocation.state == "yielding" and now > (allocation.until or 0.0):
        return "evicted", f"{allocation.reason}: it did not make room in time"
    silence = now - allocation.renewed
    if silence > (SILENT_S if allocation.begun else BEGIN_S):
        return "silent", f"it gave no sign of life for {silence:.0f} s"
    return None
