"""What a Ray cluster has and runs, and starting our functions on exactly those of its nodes that the queue has chosen.

An owner's placement group and the detached actor of its driver have one name, in which the attempt's number stands: a
head that comes back with old state hands out no group of an earlier attempt, and starting twice changes nothing. Ray
restarts no actor of ours: what is lost is found out by comparing with the store, and placed again.
"""

import contextlib
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util import list_named_actors
from ray.util.placement_group import (
    PlacementGroup,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from orchestrator.ray import calls

_PLACED_WITHIN_S = 10.0
_READ_WITHIN_S = 20.0
_READ_WITHIN_S = 20.0
_POLL_S = 0.05
_NOTHING = {"CPU": 0.001}
"""Of a bundle that asks for nothing: Ray takes no empty one."""


def observe() -> dict[str, Any]:
    """Nodes, groups and actors, as plain values; see `ray.remote.Seen`."""
    leaving = _leaving()
    nodes = [
        {"id": node["NodeID"], "address": node["NodeManagerAddress"], "resources": node["Resources"],
         "labels": node.get("Labels", {}), "leaves_at": leaving.get(node["NodeID"])}
        for node in ray.nodes() if node["Alive"]
    ]  # fmt: skip
    ours, foreign = list[dict[str, Any]](), list[dict[str, Any]]()
    for found in placement_group_table().values():
        if found["state"] != "REMOVED":
            mine = found["name"].startswith(_prefix())
            (ours if mine else foreign).append(_group(found, found["name"].removeprefix(_prefix())))
    return {"nodes": nodes, "groups": ours, "foreign": foreign, "actors": list_named_actors()}


def _group(found: dict[str, Any], name: str) -> dict[str, Any]:
    where = found["bundles_to_node_id"]
    bundles = [{"node": where[index], "resources": what} for index, what in found["bundles"].items()]
    return {"name": name, "state": found["state"], "bundles": bundles}


def _prefix() -> str:
    """Groups have no namespace of their own."""
    return f"{ray.get_runtime_context().namespace}:"


def _leaving() -> dict[str, float]:
    """Nodes that are drained -> seconds since 1970 at which they go."""
    from ray._private.worker import global_worker

    found = global_worker.gcs_client.get_draining_nodes(timeout=5)  # a public way does not exist
    return {getattr(node, "hex", lambda node=node: node)(): at / 1000 for node, at in found.items()}


def read(path: str, nodes: Sequence[str]) -> dict[str, str | None]:
    """The text of a file as each of these nodes sees it; None where it does not, or does not say in time."""
    asked = {
        node: _read.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)) for node in nodes
    }
    answers = {asked[node].remote(path): node for node in nodes}
    ready, _ = ray.wait(list(answers), num_returns=len(answers), timeout=_READ_WITHIN_S) if answers else ([], [])
    found: dict[str, str | None] = dict.fromkeys(nodes)
    for answer in ready:
        with contextlib.suppress(RayError):  # it has gone meanwhile
            found[answers[answer]] = ray.get(answer)
    return found


def _text(path: str) -> str | None:
    with contextlib.suppress(OSError):
        return Path(path).read_text()
    return None


def start(name: str, target: str, args: Sequence[Any], nodes: Sequence[str], bundle: Mapping[str, float]) -> str | None:
    """Run `target(*args)` in a detached actor on the first of these nodes, with one bundle on each of them reserved.

    None, or why it could not be placed; then nothing is left of it.
    """
    if _existing(name) is not None:
        return None
    group = _reserve(name, nodes, bundle)
    if not group.wait(_PLACED_WITHIN_S):
        state = placement_group_table(group).get("stats", {}).get("scheduling_state", "unknown")
        end(name)
        return f"Ray found no room on the chosen nodes within {_PLACED_WITHIN_S:.0f} s ({state})"
    inside = PlacementGroupSchedulingStrategy(
        placement_group=group, placement_group_bundle_index=0, placement_group_capture_child_tasks=False
    )
    _start(name, target, args, {"scheduling_strategy": inside})
    return None


def start_anywhere(name: str, target: str, args: Sequence[Any]) -> None:
    """The same with nothing reserved, on any node."""
    if _existing(name) is None:
        _start(name, target, args, {})


def _start(name: str, target: str, args: Sequence[Any], options: dict[str, Any]) -> None:
    """Returns before its process has begun: whether it does shows in the store."""
    _Detached.options(name=name, lifetime="detached", get_if_exists=True, num_cpus=0, max_restarts=0, **options).remote(
        name, calls.settings(name), target, tuple(args)
    )


def end(name: str) -> None:
    """End the actor and the group of that name, whatever of them exists."""
    actor = _existing(name)
    if actor is not None:
        ray.kill(actor, no_restart=True)
    for found in placement_group_table().values():
        if found["name"] == _prefix() + name and found["state"] != "REMOVED":
            remove_placement_group(get_placement_group(found["name"]))


def _existing(name: str) -> Any:
    try:
        return ray.get_actor(name)
    except ValueError:
        return None


def _reserve(name: str, nodes: Sequence[str], bundle: Mapping[str, float]) -> PlacementGroup:
    try:
        return get_placement_group(_prefix() + name)
    except ValueError:
        wanted = {kind: amount for kind, amount in bundle.items() if amount} or _NOTHING
        pinned = [{"ray.io/node-id": node} for node in nodes]
        bundles = [wanted for _ in nodes]
        return placement_group(bundles, name=_prefix() + name, lifetime="detached", bundle_label_selector=pinned)


class _Detachable:
    """Runs its function in a thread of its own from the moment when it is made, and ends with it."""

    def __init__(self, name: str, settings: dict[str, str], target: str, args: tuple[Any, ...]) -> None:
        self._name = name
        threading.Thread(target=self._run, args=(settings, target, args), daemon=True).start()

    def _run(self, settings: dict[str, str], target: str, args: tuple[Any, ...]) -> None:
        try:
            calls.call(settings, target, args)
        except Exception:  # the actor must end whatever its function did; Ray keeps this in its log
            traceback.print_exc()
        group = ray.util.get_current_placement_group()
        for _ in range(100):  # the head may be away for a moment; what we leave is found by the controller
            try:
                if group is not None:
                    remove_placement_group(group)
                ray.kill(ray.get_actor(self._name), no_restart=True)
                return
            except RayError:
                time.sleep(_POLL_S)


_read = ray.remote(num_cpus=0, max_retries=0)(_text)
_Detached = ray.remote(_Detachable)
