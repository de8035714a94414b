"""Running our functions on Ray: detached (they outlive the command) or inside a placement group (one stage).

A function is named by text, `package.module:function`, and gets plain values, so that nothing is pickled by reference
to the caller's own code and a restarted actor can start it again.
"""

import importlib
import os
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from ray.util.placement_group import (
    PlacementGroup,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator.errors import InfrastructureError, NotAllowedError, OrchError, WorkerDiedError, from_record
from orchestrator.ray.connect import NAMESPACE

_POLL_S = 0.2
_TRIES = 10
_PATIENCE_S = 3.0
_PLACE_TIMEOUT_S = 120.0


def start_detached(name: str, target: str, *args: Any, num_cpus: float = 0, num_gpus: float = 0) -> None:
    """Run `target(*args)` in a named actor that outlives us, and again if its process dies, until it returns.

    Starting a name that already runs changes nothing. An actor that reserves something sits in a placement group that
    ends with it. Raises InfrastructureError when the cluster has no room for it within two minutes.
    """
    for _ in range(_TRIES):
        actor = _existing(name) or _new(name, target, args, num_cpus, num_gpus)
        try:
            ray.get(actor.ping.remote(), timeout=_PLACE_TIMEOUT_S)
            return
        except RayActorError:  # an actor of this name was just ending
            time.sleep(_POLL_S)
        except GetTimeoutError as error:
            _forget(name)
            raise InfrastructureError(
                f"{name}: {_shortage(num_cpus, num_gpus)}", next_step="stop something (`orch status`), then try again"
            ) from error
    raise InfrastructureError(
        f"{name} could not be started", next_step="see `orch status`, then the same command again"
    )


def _existing(name: str) -> Any:
    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return None


def _new(name: str, target: str, args: tuple[Any, ...], num_cpus: float, num_gpus: float) -> Any:
    options: dict[str, Any] = {"name": name, "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True}
    if num_cpus or num_gpus:
        group = _reserve(name, num_cpus, num_gpus, detached=True)
        options |= {"scheduling_strategy": _inside(group), "num_gpus": num_gpus}
    return _Detached.options(num_cpus=num_cpus, max_restarts=-1, **options).remote(name, _settings(name), target, args)


def _settings(name: str) -> dict[str, str]:
    """Environment of the actor of that name: who it is in the event log, and the store that its starter uses."""
    return {"ORCH_WHO": name, "ORCH_STORE": os.environ.get("ORCH_STORE", "")}


def _forget(name: str) -> None:
    """End an actor that was never placed, and its placement group."""
    actor = _existing(name)
    if actor is not None:
        ray.kill(actor, no_restart=True)
    for found in placement_group_table().values():
        if found["name"].startswith(f"{name}.") and found["state"] != "REMOVED":
            remove_placement_group(get_placement_group(found["name"]))


def is_running(name: str) -> bool:
    """Whether a detached actor of that name lives."""
    return _existing(name) is not None


def run_in_group(
    name: str,
    target: str,
    *args: Any,
    num_cpus: float,
    num_gpus: float = 0,
    cancelled: Callable[[], bool],
    waiting: Callable[[str], None] = lambda _: None,
) -> Any:
    """Run `target(*args)` in a placement group with these resources; its value, or None once `cancelled` says so.

    `waiting` is told once what the group waits for when it is not placed at once.

    Raises the target's own OrchError, NotAllowedError when the cluster can never give the resources, and
    WorkerDiedError when the process or its node died.
    """
    group = _reserve(name, num_cpus, num_gpus, detached=False)
    try:
        strategy = {"scheduling_strategy": _inside(group), "num_gpus": num_gpus}
        actor = _Attached.options(num_cpus=num_cpus, **strategy).remote()
        answer = actor.call.remote(_settings(name), target, args)
        placed, begun = group.ready(), time.monotonic()
        while not ray.wait([answer], timeout=_POLL_S)[0]:
            if time.monotonic() - begun > _PATIENCE_S and placed is not None:
                if not ray.wait([placed], timeout=0)[0]:
                    waiting(_shortage(num_cpus, num_gpus))
                placed = None
            if cancelled():
                ray.kill(actor)
                return None
        return _value(ray.get(answer))
    except RayActorError as error:
        raise WorkerDiedError(f"the process of {name} died: {error}") from error
    except RayTaskError as error:
        raise OrchError(f"{name} failed in a way that nobody foresaw:\n{error}") from error
    finally:
        remove_placement_group(group)


def _reserve(name: str, num_cpus: float, num_gpus: float, *, detached: bool) -> PlacementGroup:
    bundle = {kind: amount for kind, amount in (("CPU", num_cpus), ("GPU", num_gpus)) if amount}
    have = ray.cluster_resources()
    for kind, amount in bundle.items():
        if have.get(kind, 0) < amount:
            raise NotAllowedError(f"{name} needs {amount:g} {kind} on one node, the cluster has {have.get(kind, 0):g}")
    # the time makes a group's name unique: a restarted head must not hand out an old group of the same name
    unique = f"{name}.{time.time_ns()}"
    return placement_group([bundle or {"CPU": 0.001}], name=unique, lifetime="detached" if detached else None)


def _shortage(num_cpus: float, num_gpus: float) -> str:
    free = ray.available_resources()
    return (
        f"waiting for {num_cpus:g} CPU and {num_gpus:g} GPU on one node; "
        f"free now: {free.get('CPU', 0):g} CPU, {free.get('GPU', 0):g} GPU"
    )


def _inside(group: PlacementGroup) -> PlacementGroupSchedulingStrategy:
    return PlacementGroupSchedulingStrategy(placement_group=group, placement_group_capture_child_tasks=False)


def _call(settings: dict[str, str], target: str, args: tuple[Any, ...]) -> Any:
    os.environ.update(settings)
    module, function = target.split(":")
    return getattr(importlib.import_module(module), function)(*args)


def _value(answer: tuple[str, Any]) -> Any:
    kind, value = answer
    if kind == "error":
        raise from_record(value)
    return value


class _Attachable:
    """Calls one function; an expected error comes back as data, so that its type survives."""

    def call(self, settings: dict[str, str], target: str, args: tuple[Any, ...]) -> tuple[str, Any]:
        try:
            return "value", _call(settings, target, args)
        except OrchError as error:
            return "error", error.as_record()


class _Detachable:
    """Starts its function when it is made, so that Ray's restart of the actor is a restart of the function."""

    def __init__(self, name: str, settings: dict[str, str], target: str, args: tuple[Any, ...]) -> None:
        self._name = name
        threading.Thread(target=self._run, args=(settings, target, args), daemon=True).start()

    def ping(self) -> None:
        """Answers once the actor exists."""

    def _run(self, settings: dict[str, str], target: str, args: tuple[Any, ...]) -> None:
        try:
            _call(settings, target, args)
        except Exception:  # the actor must end whatever its function did; Ray keeps this in its log
            traceback.print_exc()
        group = ray.util.get_current_placement_group()
        if group is not None:
            remove_placement_group(group)
        ray.kill(ray.get_actor(self._name, namespace=NAMESPACE), no_restart=True)


_Attached = ray.remote(_Attachable)
_Detached = ray.remote(_Detachable)
