"""Asking every node of a cluster about itself: one actor pinned to each node, all at once."""

import time
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.clusters.compare import Seen
from orchestrator.clusters.probe import Asked, NodeReport, report

TIMEOUT_S = 60.0
"""For one node to start a process, import orch and answer."""
_ROUNDS = 3


def ask_each(asked: Asked, *, timeout_s: float = TIMEOUT_S) -> list[Seen]:
    """Every node that is alive to Ray, by address; one that does not answer in time has an error instead of a report.

    Needs a connection to Ray (`connect.connected`).
    """
    nodes = sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: node["NodeManagerAddress"])
    actors = [_on(node["NodeID"]) for node in nodes]
    answers = [actor.report.remote(asked.model_dump(mode="json")) for actor in actors]
    deadline = time.monotonic() + timeout_s
    try:
        return [_seen(*each, deadline) for each in zip(nodes, actors, answers, strict=True)]
    finally:
        for actor in actors:
            ray.kill(actor)


def _on(node: str) -> Any:
    pinned = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    return _Asked.options(num_cpus=0, scheduling_strategy=pinned).remote()


def _seen(node: dict[str, Any], actor: Any, answer: Any, deadline: float) -> Seen:
    known = (node["NodeID"], node["NodeManagerAddress"], node["Labels"], node["Resources"])
    try:
        found = NodeReport.model_validate(ray.get(answer, timeout=max(0.0, deadline - time.monotonic())))
        return Seen(*known, found, "", *_skew(actor, deadline))
    except GetTimeoutError:
        return Seen(*known, error="it does not answer: Ray holds it for alive, but nothing starts there in time")
    except RayError as error:
        return Seen(*known, error=f"it cannot answer: {_cause(error)}")


def _skew(actor: Any, deadline: float) -> tuple[float, float]:
    """(the node's clock less ours, how far that may be off), from the shortest of some round trips, as NTP does it."""
    trips = []
    for _ in range(_ROUNDS):
        begun, started = time.time(), time.monotonic()
        there = ray.get(actor.clock.remote(), timeout=max(1.0, deadline - time.monotonic()))
        half = (time.monotonic() - started) / 2
        trips.append((half, there - begun - half))
    half, skew = min(trips)
    return skew, half


def _cause(error: RayError) -> str:
    """The last line says what; the ones before it, where."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[-1] if lines else type(error).__name__
    if "ModuleNotFoundError" in str(error):
        return f"{said} (is orch installed there?)"
    return f"its Ray went away, or hangs ({said})" if isinstance(error, RayActorError) else said


class _Asking:
    """Plain data in and out: what crosses between nodes does not depend on our classes."""

    def report(self, asked: dict[str, Any]) -> dict[str, Any]:
        return report(Asked.model_validate(asked)).model_dump(mode="json")

    def clock(self) -> float:
        return time.time()


_Asked = ray.remote(_Asking)
