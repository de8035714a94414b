"""One stage of a run in an actor of its own, inside the places that its driver holds."""

import importlib
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator.errors import Cause, OrchError, WorkerDiedError
from orchestrator.ray import calls

_POLL_S = 0.2


def run(
    name: str,
    module: str,
    args: tuple[Any, ...],
    *,
    num_cpus: float,
    num_gpus: float,
    unwanted: Callable[[], bool],
    grace_s: float,
) -> Any:
    """`module.execute(*args)` in the first bundle of the driver's own placement group; its value.

    Once `unwanted` says so, `module.stop()` asks it to end, and its value is whatever it then has; after `grace_s`
    seconds its process is killed, and the value is None.

    Raises the function's own OrchError, and WorkerDiedError when its process or its node died.
    """
    inside = PlacementGroupSchedulingStrategy(
        placement_group=ray.util.get_current_placement_group(), placement_group_bundle_index=0
    )
    actor = _Stage.options(num_cpus=num_cpus, num_gpus=num_gpus, scheduling_strategy=inside, max_concurrency=2).remote()
    answer, stopped = actor.execute.remote(calls.settings(name), module, args), None
    try:
        while not ray.wait([answer], timeout=_POLL_S)[0]:
            if stopped is None and unwanted():
                actor.stop.remote(module)
                stopped = time.monotonic()
            if stopped is not None and time.monotonic() - stopped > grace_s:
                return None
        return calls.value(ray.get(answer))
    except RayActorError as error:
        cause: Cause = "host_memory" if "out of memory" in str(error).lower() else "unknown"  # Ray's memory monitor
        raise WorkerDiedError(f"the process of {name} died: {error}", cause=cause) from error
    except RayTaskError as error:
        raise OrchError(f"{name} failed in a way that nobody foresaw:\n{error}") from error
    finally:
        ray.kill(actor)


class _Executing:
    """Two threads: one executes, the other can stop it."""

    def execute(self, settings: dict[str, str], module: str, args: tuple[Any, ...]) -> tuple[str, Any]:
        return calls.answer(settings, f"{module}:execute", args)

    def stop(self, module: str) -> None:
        importlib.import_module(module).stop()


_Stage = ray.remote(_Executing)
