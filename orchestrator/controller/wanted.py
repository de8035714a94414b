"""What the store wants of every cluster: runs that wait, places that are held, engines and gateways that must run."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from orchestrator.clusters.cluster import Cluster
from orchestrator.controller import needs, request
from orchestrator.controller.request import Request
from orchestrator.planner.plan import Plan
from orchestrator.scheduler.values import Run
from orchestrator.serving.start import ENGINE_CPUS
from orchestrator.store.records import ENGINE, Allocation, Bundle, Release, Waiting, release_of
from orchestrator.store.store import Store

LOCAL = "local"
"""Address of a machine's own Ray."""
_DRIVE = "orchestrator.controller.drive:drive_held"
_OWN_ENGINE = "orchestrator.serving.owners:own_engine"


class _Known(NamedTuple):
    """Of one owner; None instead of it where another machine's own Ray is meant, which that machine looks after."""

    address: str
    request: Request


@dataclass
class Wanted:
    """Of one cluster."""

    cluster: Cluster
    waiting: list[Request] = field(default_factory=list)
    """Runs in the queue, and engines without a place; the oldest first."""
    held: list[Allocation] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    """Of `held`, by owner."""
    adrift: list[Waiting] = field(default_factory=list)
    """Runs that go on by their state, and hold no places."""
    unwanted: list[Allocation] = field(default_factory=list)
    """Of `held`: engines of releases that are stopped. Their drivers end by themselves."""
    gateways: set[int] = field(default_factory=set)
    """Ports."""
    ended: dict[str, list[Allocation]] = field(default_factory=dict)
    """What the owners that wait have held before."""

    @property
    def anything(self) -> bool:
        """Whether the cluster must be reached for it."""
        return bool(self.waiting or self.held or self.adrift)


class Reader:
    """Reads the store again and again; remembers what cannot change, since a plan is large."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[tuple[str, float], _Known | None] = {}
        self._clusters: dict[str, tuple[float, Cluster]] = {}

    def read(self) -> dict[str, Wanted]:
        """By the address of the cluster."""
        held = self._store.allocations.live()
        unfinished = self._store.unfinished()
        releases = [release for release in self._store.releases() if release.state in ("starting", "warm")]
        engines = {f"{ENGINE}{release.name}": release for release in releases}
        ended = self._store.allocations.ended(engines)
        self._forget({run.id for run in unfinished} | set(engines))
        found: dict[str, Wanted] = {}
        holders = {allocation.owner: allocation for allocation in held}
        for run in unfinished:
            known = self._run(run, ended.get(run.id, []))
            if known is not None:
                self._add(self._of(found, known.address), run, known.request, holders.get(run.id))
        for owner, release in engines.items():
            known = self._engine(owner, release)
            if known is not None:
                wanted = self._of(found, known.address)
                wanted.gateways.add(release.spec["port"])
                self._hold_or_wait(wanted, known.request, holders.get(owner))
        for allocation in held:
            if allocation.is_engine and allocation.owner not in engines:
                known = self._engine(allocation.owner, self._store.release(*release_of(allocation.owner)))
                if known is not None:
                    self._of(found, known.address).unwanted.append(allocation)
                    self._of(found, known.address).held.append(allocation)
        for wanted in found.values():
            wanted.ended = {asked.run.id: ended.get(asked.run.id, []) for asked in wanted.waiting}
        return found

    def _add(self, wanted: Wanted, run: Waiting, asked: Request, holds: Allocation | None) -> None:
        if holds is None and run.state != "queued":
            wanted.adrift.append(run)
        else:
            self._hold_or_wait(wanted, asked, holds)

    def _hold_or_wait(self, wanted: Wanted, asked: Request, holds: Allocation | None) -> None:
        if holds is None:
            wanted.waiting.append(asked)
        else:
            wanted.held.append(holds)
            wanted.runs[holds.owner] = asked.run

    def _of(self, found: dict[str, Wanted], address: str) -> Wanted:
        if address not in found:
            cluster = (
                self._clusters[address][1] if address in self._clusters else Cluster(name=address, address=address)
            )
            found[address] = Wanted(cluster)
        return found[address]

    def _run(self, run: Waiting, before: Sequence[Allocation]) -> _Known | None:
        key = run.id, run.queued or run.created
        if key not in self._known:
            plan = Plan.model_validate(self._store.run(run.id).plan)
            done = {row.stage for row in self._store.stage_runs(run.id) if row.state in needs.DONE}
            need = needs.need(plan, done)
            yielded = sum(allocation.cause in ("yielded", "evicted") for allocation in before)
            asked = request.of_run(run.id, queueing=plan.queueing, kind=plan.accelerator, need=need,
                                   created=run.created, queued=key[1], preemptions=yielded)  # fmt: skip
            made = Request(asked, need.bundle, _DRIVE, (str(self._store.home), run.id), is_run=True)
            self._know(key, plan.cluster, run.owner, run.created, made)
        return self._known[key]

    def _engine(self, owner: str, release: Release) -> _Known | None:
        key = owner, 0.0
        if key not in self._known:
            of = self._store.run(release.run)
            plan = Plan.model_validate(of.plan)
            bundle = Bundle(num_cpus=ENGINE_CPUS, num_gpus=release.spec["num_gpus"])
            asked = request.of_engine(owner, kind=plan.accelerator, bundle=bundle, since=release.created)
            args = (str(self._store.home), release.service, release.number)
            self._know(key, plan.cluster, of.owner, of.created, Request(asked, bundle, _OWN_ENGINE, args, is_run=False))
        return self._known[key]

    def _know(self, key: tuple[str, float], cluster: Cluster, owner: str, created: float, made: Request) -> None:
        elsewhere = cluster.address == LOCAL and self._store.is_shared and host_of(owner) != socket.gethostname()
        self._known[key] = None if elsewhere else _Known(cluster.address, made)
        if not elsewhere and created >= self._clusters.get(cluster.address, (0.0, cluster))[0]:
            self._clusters[cluster.address] = created, cluster  # the newest run knows best what it is

    def _forget(self, owners: set[str]) -> None:
        for key in [key for key in self._known if key[0] not in owners]:
            del self._known[key]


def host_of(owner: str) -> str:
    """Of `user@host`."""
    return owner.partition("@")[2]
