"""One cluster under control: what it runs is made to be what the store wants, and who waits is placed.

Every effect is in the store before it happens, under the controller's lease: a controller that was overtaken while it
slept is refused there, and does nothing. `step` may be interrupted at any line; the next one, of whichever controller,
finds out what is left to do.
"""

import math
import secrets
from collections.abc import Callable

from orchestrator.controller import reconcile
from orchestrator.controller.queueing import Queue
from orchestrator.controller.wanted import Wanted
from orchestrator.errors import InfrastructureError, StaleClaimError
from orchestrator.ray.remote import Cluster, Seen
from orchestrator.store.records import Allocation, release_of
from orchestrator.store.store import Store

_OWN_GATEWAY = "orchestrator.serving.owners:own_gateway"
_GATEWAY_AGAIN_S = 30.0
_ASK_AGAIN_S = 60.0
"""A node that did not see the store's folder may only have been slow, or was mended."""


class Control:
    """Call `step` again and again, from one thread."""

    def __init__(self, cluster: Cluster, clock: Callable[[], float]) -> None:
        self.cluster = cluster
        self._clock, self._queue = clock, Queue(cluster, clock)
        self._gateways: dict[int, float] = {}
        self._sees: dict[str, bool] = {}
        self._asked: dict[str, float] = {}

    def step(self, store: Store, wanted: Wanted, *, patient: bool) -> bool:
        """One round; whether another one should follow at once.

        `store` refuses writes once the lease is lost. `patient`: silence proves nothing yet, since nobody could be
        heard for a while. Raises InfrastructureError when the cluster is not reached; nothing is done then.
        """
        try:
            seen = self.cluster.observe()
        except InfrastructureError as error:
            self._queue.explain(store, {asked.run.id: error.message for asked in wanted.waiting})
            raise
        now = store.allocations.now()  # refused when the lease is lost: nothing below happens then
        live = self._reconciled(store, wanted, seen, -math.inf if patient else now)
        self._keep_gateways(store, wanted, seen)
        usable, blind = self._usable(store, seen)
        return self._queue.schedule(store, wanted, usable, live, blind)

    def _usable(self, store: Store, seen: Seen) -> tuple[Seen, list[str]]:
        """The nodes that see the store's folder, where stages leave what they make; and words about the others."""
        now = self._clock()
        new = [
            node.id
            for node in seen.nodes
            if not self._sees.get(node.id) and now - self._asked.get(node.id, -math.inf) > _ASK_AGAIN_S
        ]
        if new:
            self._asked |= dict.fromkeys(new, now)
            marker, token = store.home / "shared-marker", secrets.token_hex(8)
            marker.write_text(token)
            self._sees |= {node: text == token for node, text in self.cluster.read(str(marker), new).items()}
        blind = [node.address for node in seen.nodes if not self._sees[node.id]]
        usable = [node for node in seen.nodes if self._sees[node.id]]
        words = [f"node {address} does not see {store.home}: set ORCH_HOME to a shared folder" for address in blind]
        return seen.model_copy(update={"nodes": usable}), words

    def _reconciled(self, store: Store, wanted: Wanted, seen: Seen, now: float) -> list[Allocation]:
        """Give up what is lost, end what nobody wants; the allocations that stand."""
        live = {allocation.name: allocation for allocation in wanted.held}
        for found in reconcile.lost(wanted.held, seen, now):
            self._give_up(store, wanted, found)
            del live[found.allocation.name]
        for name in reconcile.unknown(wanted.held, seen):
            self.cluster.end(name)
        for run in wanted.adrift:
            store.move_run(run.id, "cancelled" if run.state == "cancelling" else "queued")
        return list(live.values())

    def _give_up(self, store: Store, wanted: Wanted, found: reconcile.Lost) -> None:
        owner, run = found.allocation.owner, None
        if owner in wanted.runs and not found.allocation.is_engine:
            run = "cancelled" if store.run_state(owner) == "cancelling" else "queued"
        try:
            store.allocations.end(found.allocation, found.cause, found.reason, run=run)
        except StaleClaimError:  # it has just ended by itself, or our lease has, which the next write meets as well
            return
        if found.allocation.is_engine and found.allocation not in wanted.unwanted:
            self._route_no_more(store, found)
        self.cluster.end(found.allocation.name)

    def _route_no_more(self, store: Store, found: reconcile.Lost) -> None:
        """The gateway must not send requests to an engine that is gone."""
        service, number = release_of(found.allocation.owner)
        release = store.release(service, number)
        if release.state == "warm":
            store.move_release(release, "starting", reason=found.reason)

    def _keep_gateways(self, store: Store, wanted: Wanted, seen: Seen) -> None:
        for port in sorted(wanted.gateways):
            name, now = f"{reconcile.GATEWAY}{port}", self._clock()
            if name not in seen.actors and now - self._gateways.get(port, -math.inf) > _GATEWAY_AGAIN_S:
                self._gateways[port] = now
                self.cluster.start_anywhere(name, _OWN_GATEWAY, [str(store.home), port])
