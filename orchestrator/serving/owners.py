"""What runs inside the detached actors: each owns one process, keeps it alive within bounds, and obeys the store.

The store says what is wanted (a release in state starting or warm wants its engine), the owner makes it so. Stopping
an engine is therefore a change of its release's state; the owner lets the requests in flight finish first.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator import engines, plugins, processes, token_contract
from orchestrator.engines import running
from orchestrator.engines.watch import PROBE_EVERY_S, PROBE_TIMEOUT_S, Watch
from orchestrator.environments.site import Site
from orchestrator.errors import EngineError, OrchError
from orchestrator.serving import gateway
from orchestrator.store.records import Release
from orchestrator.store.store import Store

MAX_STARTS = 4
"""Of one engine or gateway within WINDOW_S; a crash loop ends there, with the last cause in the event log."""
WINDOW_S = 600.0
_WATCH_S = 0.2
_DRAIN_TIMEOUT_S = 120.0


def own_engine(
    home: str,
    service: str,
    number: int,
    *,
    probe_every_s: float = PROBE_EVERY_S,
    probe_timeout_s: float = PROBE_TIMEOUT_S,
) -> None:
    """Run the engine of a release for as long as the store wants it."""
    store, deaths = Store(Path(home)), list[Death]()
    while (release := store.release(service, number)).state in ("starting", "warm"):
        if release.state == "warm":  # our last process died with its owner
            store.move_release(release, "starting", reason="its owner was restarted")
        try:
            lost: OrchError | None = _run_engine(store, release, probe_every_s, probe_timeout_s)
        except OrchError as error:
            lost = error
        if lost is None:
            return
        store.record("release.engine_lost", service=service, release=number, error=lost.as_record())
        deaths.append(Death(time.monotonic(), lost))
        if gives_up(deaths, now=time.monotonic()):
            store.move_release(release, "failed", reason=lost.message)
            return


class LostError(EngineError):
    """An engine that had answered does not work any more."""


@dataclass(frozen=True)
class Death:
    """The end of an engine that was still wanted."""

    at: float
    """Monotonic seconds."""
    error: OrchError
    """A LostError if it had been ready."""


def gives_up(deaths: Sequence[Death], *, now: float) -> bool:
    """Whether another start would only meet the same: MAX_STARTS deaths within WINDOW_S, or two starts in a row that
    never answered, for the same reason."""
    recent = [death for death in deaths if now - death.at < WINDOW_S]
    last = [death.error for death in recent[-2:]]
    stuck = len(last) == 2 and last[0].message == last[1].message and LostError not in map(type, last)
    return stuck or len(recent) >= MAX_STARTS


def _run_engine(store: Store, release: Release, probe_every_s: float, probe_timeout_s: float) -> LostError | None:
    """One engine process from start to end; None when it ended because it was no longer wanted.

    Raises EngineError when it does not become ready.
    """
    spec, model = release.spec, Path(release.spec["model"])
    versions = spec.get("versions", {})  # of releases that were made before there were any
    site = Site(store.home, spec["kind"], spec["images"], versions, say=lambda message: _say(store, release, message))
    options = plugins.load(engines, spec["engine"]).Options(**spec["engine_args"])
    served = running.start(spec["engine"], model, options, alias=release.name, directory=store.home / "logs", site=site)
    try:
        running.wait_until_ready(served, contract=token_contract.read(model))
        pid, fields = served.process.pid, served.fields
        store.move_release(release, "warm", url=served.url, model=served.model, pid=pid, request_fields=fields)
        lost = _watch(store, release, Watch(served, every_s=probe_every_s, timeout_s=probe_timeout_s))
        if lost is None:
            _drain(release)
        return lost
    finally:
        served.process.stop()


def _say(store: Store, release: Release, message: str) -> None:
    store.record("log", service=release.service, release=release.number, message=message)


def _watch(store: Store, release: Release, watch: Watch) -> LostError | None:
    """Returns once the release is no longer wanted, or with what its engine was lost for; then nothing is routed to it
    any more."""
    changed = store.watch()

    def wanted() -> bool:
        return store.release(release.service, release.number).state == "warm"

    try:
        while not changed() or wanted():
            trouble = watch.trouble()
            if trouble and wanted():
                error = watch.served.failed(f"the engine of {release.name} was lost: {trouble}")
                store.move_release(release, "starting", reason=f"its engine was lost: {trouble}")
                return LostError(error.message, next_step=error.next_step)
            if trouble:
                return None
            time.sleep(_WATCH_S)
        return None
    finally:
        watch.close()


def _drain(release: Release) -> None:
    deadline = time.monotonic() + _DRAIN_TIMEOUT_S
    while gateway.in_flight(release.spec["port"], release.name) and time.monotonic() < deadline:
        time.sleep(_WATCH_S)


def own_gateway(home: str, port: int) -> None:
    """Run the gateway until `orch down`; gives up after MAX_STARTS deaths within WINDOW_S."""
    store, deaths = Store(Path(home)), list[float]()
    while len(deaths) < MAX_STARTS:
        command = [sys.executable, "-m", "orchestrator.gateway.app", "--port", str(port), "--home", home]
        process = processes.start(command, log=store.home / "logs" / "gateway.log")
        code = process.wait()
        store.record("gateway.died", port=port, reason=processes.died_of(code), log=process.last_lines(3))
        if code == 2:  # bad input, the port above all: another try meets the same
            return
        deaths = [at for at in [*deaths, time.monotonic()] if time.monotonic() - at < WINDOW_S]
