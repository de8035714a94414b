"""What runs inside the detached actors: each owns one process, keeps it alive within bounds, and obeys the store.

The store says what is wanted (a release in state starting or warm wants its engine), the owner makes it so. Stopping
an engine is therefore a change of its release's state; the owner lets the requests in flight finish first.
"""

import sys
import time
from pathlib import Path

from orchestrator import engines, plugins, processes, token_contract
from orchestrator.engines import running
from orchestrator.engines.running import Running
from orchestrator.environments.site import Site
from orchestrator.errors import OrchError
from orchestrator.serving import gateway
from orchestrator.store.records import Release
from orchestrator.store.store import Store

MAX_STARTS = 4
"""Of one engine or gateway within WINDOW_S; a crash loop ends there, with the last cause in the event log."""
WINDOW_S = 600.0
_WATCH_S = 0.2
_DRAIN_TIMEOUT_S = 120.0


def own_engine(home: str, service: str, number: int) -> None:
    """Run the engine of a release for as long as the store wants it."""
    store, deaths = Store(Path(home)), list[float]()
    while (release := store.release(service, number)).state in ("starting", "warm"):
        if release.state == "warm":  # our last process died with its owner
            store.move_release(release, "starting", reason="its owner was restarted")
        try:
            _run_engine(store, release)
        except OrchError as error:
            store.record("release.engine_lost", service=service, release=number, reason=error.message)
            deaths = _recent([*deaths, time.monotonic()])
            if len(deaths) >= MAX_STARTS:
                store.move_release(release, "failed", reason=error.message)
                return


def _recent(moments: list[float]) -> list[float]:
    return [moment for moment in moments if time.monotonic() - moment < WINDOW_S]


def _run_engine(store: Store, release: Release) -> None:
    """One engine process from start to end. Raises EngineError unless it ended because it was no longer wanted."""
    spec, model = release.spec, Path(release.spec["model"])
    site = Site(store.home, spec["kind"], spec["images"], say=lambda message: _say(store, release, message))
    options = plugins.load(engines, spec["engine"]).Options(**spec["engine_args"])
    served = running.start(spec["engine"], model, options, alias=release.name, directory=store.home / "logs", site=site)
    try:
        running.wait_until_ready(served, contract=token_contract.read(model))
        store.move_release(release, "warm", url=served.url, model=served.model, pid=served.process.pid)
        _watch(store, release, served)
        _drain(release)
    finally:
        served.process.stop()


def _say(store: Store, release: Release, message: str) -> None:
    store.record("log", service=release.service, release=release.number, message=message)


def _watch(store: Store, release: Release, served: Running) -> None:
    changed = store.watch()
    while True:
        code = served.process.poll()
        if code is not None and store.release(release.service, release.number).state == "warm":
            store.move_release(release, "starting", reason=f"its engine died: {processes.died_of(code)}")
            raise served.failed(f"the engine of {release.name} died ({processes.died_of(code)})")
        if code is not None or (changed() and store.release(release.service, release.number).state != "warm"):
            return
        time.sleep(_WATCH_S)


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
        deaths = _recent([*deaths, time.monotonic()])
