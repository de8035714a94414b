"""Bringing a service up: its gateway and the engines of the releases that must be warm. Call it as a Ray driver."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator import processes
from orchestrator.errors import EngineError, InfrastructureError, OrchError, from_record
from orchestrator.serving import gateway
from orchestrator.store.records import Release
from orchestrator.store.store import Store

ENGINE_CPUS = 0.25
"""Reserved by a warm engine on a node without accelerators: it mostly waits, and three must fit beside a stage."""
_TIMEOUT_S = 600.0


def start_gateway(home: Path, port: int) -> None:
    """Returns once this home's gateway answers. Raises InputError for a port in use, InfrastructureError otherwise."""
    from orchestrator.ray import launch

    gateway.check_port(port, home)
    if gateway.is_ours(port, home):
        return
    launch.start_detached(f"gateway-{port}", "orchestrator.serving.owners:own_gateway", str(home), port)
    if not _until(lambda: gateway.is_ours(port, home), 30):
        raise InfrastructureError(
            f"the gateway did not come up on port {port}", next_step=f"see {home}/logs/gateway.log"
        )


def start_engine(store: Store, release: Release) -> Release:
    """Returns the release once its engine has generated tokens. Raises EngineError with the cause when it cannot."""
    from orchestrator.ray import launch

    name = f"engine-{release.name}"
    if release.state != "starting" and not (release.state == "warm" and launch.is_running(name)):
        store.move_release(release, "starting")
    target = "orchestrator.serving.owners:own_engine"
    num_gpus = release.spec["num_gpus"]
    launch.start_detached(
        name, target, str(store.home), release.service, release.number, num_cpus=ENGINE_CPUS, num_gpus=num_gpus
    )
    _until(lambda: store.release(release.service, release.number).state != "starting", _TIMEOUT_S)
    now = store.release(release.service, release.number)
    if now.state != "warm":
        raise _why_not(store, now)
    return now


def _why_not(store: Store, release: Release) -> OrchError:
    """What its engine was lost for, last."""
    lost = [event.data for event in store.events(service=release.service) if event.kind == "release.engine_lost"]
    errors = [data["error"] for data in lost if data["release"] == release.number]
    if not errors:
        return EngineError(f"{release.name} did not become ready: it is {release.state}")
    cause = from_record(errors[-1])
    return type(cause)(f"{release.name} did not become ready: {cause.message}", next_step=cause.next_step)


def _until(done: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            return False
        processes.go_on()
        time.sleep(0.05)
    return True


def start_cold(store: Store, release: Release) -> Release:
    """Start the gateway and the engine of a release where it was deployed; for commands outside a run.

    A local Ray is started if need be.
    """
    from orchestrator.ray import connect

    address = release.spec["address"]
    if address == "local":
        address = connect.start_head(store.home, num_cpus=os.cpu_count() or 1)
    with connect.connected(address, store.home):
        start_gateway(store.home, release.spec["port"])
        return start_engine(store, release)
