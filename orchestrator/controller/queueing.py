"""Applies the queue's policy to one cluster: the state for it, and what it decides, written first and then done."""

import math
from collections.abc import Callable, Mapping, Sequence

from orchestrator.controller import recovery, request
from orchestrator.controller.capacity import capacity
from orchestrator.controller.request import Request
from orchestrator.controller.wanted import Wanted
from orchestrator.errors import InfrastructureError, NotAllowedError, OrchError
from orchestrator.ray.remote import Cluster, Seen
from orchestrator.scheduler.decisions import Plan, Start, Wait
from orchestrator.scheduler.policy import decide
from orchestrator.scheduler.values import Node, Running, State
from orchestrator.store.records import Allocation, Place, release_of
from orchestrator.store.store import Store

_HOLD = "orchestrator.controller.tenancy:hold"
_EXPLAIN_S = 5.0
"""Why runs wait is written so often, at most."""


class Queue:
    """Of one cluster."""

    def __init__(self, cluster: Cluster, clock: Callable[[], float]) -> None:
        self._cluster, self._clock = cluster, clock
        self._promised: dict[str, tuple[Start, Allocation]] = {}
        self._explained, self._told = -math.inf, dict[str, str]()

    def schedule(
        self, store: Store, wanted: Wanted, seen: Seen, live: Sequence[Allocation], unusable: Sequence[str]
    ) -> bool:
        """Place who waits, as the policy decides; whether more would start at once.

        `unusable`: words about nodes that are left out of `seen`.
        """
        ready, reasons = self._ready(store, wanted)
        self._keep_promises(wanted, seen)
        kept = [promised for _, promised in self._promised.values()]
        found = capacity(seen, wanted.cluster, [*live, *kept])
        words = [*found.left_out, *unusable]
        left_out = f" ({'; '.join(words)})" if words else ""
        if not found.nodes:
            reasons |= {asked.run.id: f"the cluster has no node for it now{left_out}" for asked in ready}
        if not ready and all(math.isinf(node.leaves_at) for node in found.nodes):
            self.explain(store, reasons)
            return False
        plan = decide(self._state(store, wanted, found.nodes, live, ready))
        self._ask_to_yield(store, plan, live)
        for given_up in plan.given_up:
            error = NotAllowedError(given_up.reason, next_step=f"`orch resume {given_up.run}` queues it again")
            store.move_run(given_up.run, "failed", error=error)
        placed = self._start(store, wanted, plan, live)
        if placed or self._clock() - self._explained > _EXPLAIN_S:
            self._explained = self._clock()
            waits = {wait.run: wait for wait in plan.waits.values()}
            self.explain(store, {**{run: f"{wait.reason}{left_out}" for run, wait in waits.items()}, **reasons}, waits)
        return plan.more or placed

    def explain(self, store: Store, reasons: Mapping[str, str], waits: Mapping[str, Wait] | None = None) -> None:
        """Write why runs wait, where that has changed."""
        waits = waits or {}
        changed = {run: reason for run, reason in reasons.items() if self._told.get(run) != reason}
        self._told = dict(reasons)
        if changed:
            expected = {run: waits[run].expected for run in changed if run in waits}
            finite = {run: at for run, at in expected.items() if math.isfinite(at)}
            store.note_waits({run: {"reason": changed[run], "expected": finite.get(run)} for run in changed})

    def _ready(self, store: Store, wanted: Wanted) -> tuple[list[Request], dict[str, str]]:
        """Who may be placed now, and why others may not although the cluster might have room."""
        ready, reasons = list[Request](), dict[str, str]()
        for asked in wanted.waiting:
            ended = wanted.ended.get(asked.run.id, [])
            following = recovery.after(ended)
            if following.give_up:
                self._fail(store, asked, following.give_up)
            elif following.at > self._clock():
                reasons[asked.run.id] = f"is tried again soon: {ended[-1].reason}"
            else:
                ready.append(asked)
        return ready, reasons

    def _fail(self, store: Store, asked: Request, why: str) -> None:
        error = InfrastructureError(why, next_step=f"see the logs of the nodes, then `orch resume {asked.run.id}`")
        if asked.is_run:
            store.move_run(asked.run.id, "failed", error=error)
        else:
            store.move_release(store.release(*release_of(asked.run.id)), "failed", reason=why)

    def _state(
        self, store: Store, wanted: Wanted, nodes: list[Node], live: Sequence[Allocation], ready: Sequence[Request]
    ) -> State:
        saved = store.newest("checkpoint", [allocation.owner for allocation in live if not allocation.is_engine])
        running = [
            request.running(wanted.runs[allocation.owner], allocation, saved.get(allocation.owner))
            for allocation in live
            if allocation.owner in wanted.runs
        ]
        asked = {one.run.id: one.run for one in ready}
        promised = [
            Running(asked[owner], start.placements, started=math.inf, ends=math.inf)
            for owner, (start, _) in self._promised.items()
            if owner in asked
        ]
        queued = tuple(run for run in asked.values() if run.id not in self._promised)
        return State(self._clock(), tuple(nodes), queued, (*running, *promised), request.quotas(wanted.cluster))

    def _ask_to_yield(self, store: Store, plan: Plan, live: Sequence[Allocation]) -> None:
        holders = {allocation.owner: allocation for allocation in live}
        for told in plan.preemptions:
            store.allocations.ask_to_yield(holders[told.run], told.within, told.reason)

    def _start(self, store: Store, wanted: Wanted, plan: Plan, live: Sequence[Allocation]) -> bool:
        asked = {one.run.id: one for one in wanted.waiting}
        holders, placed = {allocation.owner for allocation in live}, False
        for start in plan.starts:
            if start.after:
                self._promised[start.run] = start, _promise(asked[start.run], start)
            else:
                placed |= self._place(store, wanted, asked[start.run], start)
        for owner, (start, _) in list(self._promised.items()):
            if not holders & set(start.after):
                del self._promised[owner]
                placed |= self._place(store, wanted, asked[owner], start)
        return placed

    def _place(self, store: Store, wanted: Wanted, asked: Request, start: Start) -> bool:
        """Written first, then done; false when somebody else was faster, or Ray has no room."""
        places = [Place(node=place.node, gpus=place.gpus) for place in start.placements]
        try:
            held = store.allocations.place(
                asked.run.id, cluster=wanted.cluster.address, kind=start.kind, bundle=asked.bundle, placements=places,
                is_run=asked.is_run,
            )  # fmt: skip
        except OrchError:  # it was cancelled a moment ago; a lost lease meets every write that follows, too
            return False
        fence = (held.attempt,) if asked.is_run else ()
        args = [str(store.home), held.owner, held.attempt, asked.target, *asked.args, *fence]
        bundle = {"CPU": asked.bundle.num_cpus, "GPU": asked.bundle.num_gpus}
        why = self._cluster.start(held.name, _HOLD, args, [place.node for place in places], bundle)
        if why is not None:
            store.allocations.end(held, "unplaced", why, run="queued" if asked.is_run else None)
        return why is None

    def _keep_promises(self, wanted: Wanted, seen: Seen) -> None:
        """Those whose owner still waits, and whose nodes are still there."""
        waiting, nodes = {asked.run.id for asked in wanted.waiting}, {node.id for node in seen.nodes}
        for owner, (_, promised) in list(self._promised.items()):
            if owner not in waiting or any(place.node not in nodes for place in promised.placements):
                del self._promised[owner]


def _promise(asked: Request, start: Start) -> Allocation:
    """Counts as held, and is in no store: who yields may still need minutes."""
    return Allocation(
        owner=asked.run.id, attempt=0, cluster="", state="held", kind=start.kind, bundle=asked.bundle,
        placements=[Place(node=place.node, gpus=place.gpus) for place in start.placements],
        created=math.inf, renewed=0, begun=False, until=None, ended=None, cause=None, reason=None,
    )  # fmt: skip
