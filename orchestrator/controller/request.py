"""Runs and engines in the words of the queue's policy (pure)."""

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.clusters.cluster import Cluster
from orchestrator.controller.needs import Need
from orchestrator.planner.plan import Queueing
from orchestrator.scheduler.values import ANY, WHOLE, Demand, Option, Placement, Quota, Run, Running
from orchestrator.store.records import Allocation, Bundle

ENGINE_PRIORITY = 1_000_000
"""What serves goes before everything that trains."""
ENGINE_S = 30 * 86400.0
"""An engine is not expected to end."""


@dataclass(frozen=True)
class Request:
    """An owner that waits for places, or holds some: what it asks for and what is started there."""

    run: Run
    bundle: Bundle
    target: str
    args: tuple[str | int, ...]
    is_run: bool
    """Else an engine."""


def of_run(
    id: str, *, queueing: Queueing, kind: str | None, need: Need, created: float, queued: float, preemptions: int
) -> Run:
    """A run that waits for its next stages."""
    return Run(
        id=id,
        demand=demand(need.bundle),
        options=(Option(kind if kind and need.bundle.num_gpus else ANY, need.seconds),),
        team=queueing.team,
        priority=queueing.priority,
        submitted=created,
        waiting_since=queued,
        prefer=queueing.prefer,
        deadline=created + (queueing.deadline_s or float("inf")),
        max_queue=queueing.max_wait_s or float("inf"),
        preemptions=preemptions,
        spot=queueing.spot or not need.bundle.num_gpus,
        checkpointable=True,
    )


def of_engine(owner: str, *, kind: str | None, bundle: Bundle, since: float) -> Run:
    """A release whose engine is wanted."""
    return Run(
        id=owner,
        demand=demand(bundle),
        options=(Option(kind if kind and bundle.num_gpus else ANY, ENGINE_S),),
        priority=ENGINE_PRIORITY,
        submitted=since,
        waiting_since=since,
        spot=False,
    )


def demand(bundle: Bundle) -> Demand:
    """One bundle on one node."""
    share = 0 < bundle.num_gpus < 1
    milli = round(WHOLE * bundle.num_gpus) if share else WHOLE
    return Demand(gpus=1 if share else round(bundle.num_gpus), milli=milli, cpus=bundle.num_cpus)


def running(run: Run, held: Allocation, saved: float | None) -> Running:
    """A run in its places; `saved` is when it wrote its last checkpoint."""
    return Running(
        run=run,
        placements=tuple(Placement(place.node, place.gpus) for place in held.placements),
        started=held.created,
        ends=held.created + run.seconds,
        saved=saved if saved is not None else held.created,
        yielding=held.state == "yielding",
    )


def quotas(cluster: Cluster) -> Mapping[str, Quota]:
    """Of the cluster file."""
    return {
        team: Quota(quota.gpus, float("inf") if quota.borrow is None else quota.borrow)
        for team, quota in cluster.quotas.items()
    }
