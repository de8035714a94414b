"""Bringing a release up: it is written what is wanted, and waited until the engine, and the gateway before it, answer.

The store's controller makes it so; it has to run.
"""

import time
from collections.abc import Callable

from orchestrator.errors import EngineError, InfrastructureError, OrchError, from_record
from orchestrator.serving import gateway
from orchestrator.store.records import ENGINE, Release
from orchestrator.store.store import Store

ENGINE_CPUS = 0.25
"""Reserved by a warm engine on a node without accelerators: it mostly waits, and three must fit beside a stage."""
_TIMEOUT_S = 600.0
_GATEWAY_TIMEOUT_S = 60.0


def start_engine(store: Store, release: Release) -> Release:
    """Returns the release once its engine has generated tokens and the gateway of its port answers.

    Raises InputError for a port in use, EngineError with the cause when the engine does not become ready.
    """
    port = release.spec["port"]
    gateway.check_port(port, store.home)
    if release.state != "starting" and not (release.state == "warm" and holds_places(store, release)):
        store.move_release(release, "starting")
    _until(lambda: store.release(release.service, release.number).state != "starting", _TIMEOUT_S)
    now = store.release(release.service, release.number)
    if now.state != "warm":
        raise _why_not(store, now)
    if not _until(lambda: gateway.is_ours(port, store.home), _GATEWAY_TIMEOUT_S):
        raise InfrastructureError(
            f"the gateway did not come up on port {port}", next_step=f"see {store.home}/logs/gateway.log"
        )
    return now


def holds_places(store: Store, release: Release) -> bool:
    """Whether somebody runs its engine, or will in a moment."""
    return store.allocations.current(f"{ENGINE}{release.name}") is not None


def _why_not(store: Store, release: Release) -> OrchError:
    """What its engine was lost for, last."""
    lost = [event.data for event in store.events(service=release.service) if event.kind == "release.engine_lost"]
    errors = [data["error"] for data in lost if data["release"] == release.number]
    if not errors and not holds_places(store, release):
        return EngineError(
            f"{release.name} found no place within {_TIMEOUT_S / 60:.0f} min",
            next_step="stop something (`orch status`), then try again",
        )
    if not errors:
        return EngineError(f"{release.name} did not become ready: it is {release.state}")
    cause = from_record(errors[-1])
    return type(cause)(f"{release.name} did not become ready: {cause.message}", next_step=cause.next_step)


def _until(done: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
