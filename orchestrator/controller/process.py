"""The controller as a process: started by the first command that needs it, or by a service manager; one for a store.

Who holds the lease `controller` is the controller. On a store of several machines each of them has one more lease, for
its own Ray (`controller of HOST`).
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

from orchestrator.controller import leader
from orchestrator.controller.controller import Controller
from orchestrator.controller.leader import Leader
from orchestrator.controller.wanted import LOCAL
from orchestrator.digests import digest_value
from orchestrator.errors import InfrastructureError, NotAllowedError, StoreAwayError
from orchestrator.processes import started_at
from orchestrator.ray.remote import Remote
from orchestrator.store.store import Store

_LOOK_S, _LEAST_S, _MOST_S, _IDLE_S = 0.1, 0.5, 2.0, 10.0
"""Seconds: between two looks at the store, between two rounds at least, and at most while something waits, or not."""
_BEGUN_WITHIN_S = 30.0
_STOPPED_WITHIN_S = 20.0


def lease_of(store: Store, address: str) -> str:
    """The lease of who may act on a cluster."""
    return f"controller of {socket.gethostname()}" if store.is_shared and address == LOCAL else "controller"


def running(store: Store, address: str = LOCAL) -> str | None:
    """host|pid|start of the controller of a cluster; None when there is none."""
    return store.leases.holder(lease_of(store, address))


def namespace(store: Store) -> str:
    """Of this store's actors and groups on every cluster."""
    where = store.place if store.is_shared else f"{socket.gethostname()}:{store.place}"
    return f"orch-{digest_value(where)[:12]}"


def ensure(store: Store, address: str = LOCAL) -> None:
    """Start one in the background unless there is one. Raises InfrastructureError when it does not begin."""
    if running(store, address):
        return
    log = store.home / "logs" / "controller.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli.main", "controller"],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            env={**os.environ, "ORCH_HOME": str(store.home)},
        )  # fmt: skip
    deadline = time.monotonic() + _BEGUN_WITHIN_S
    while not running(store, address):
        if process.poll() is not None or time.monotonic() > deadline:
            if running(store, address):  # another command's was faster
                return
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            raise InfrastructureError(f"the controller did not begin:\n{tail}", next_step=f"the whole log: {log}")
        time.sleep(_LOOK_S)


def serve(store: Store, *, standby: bool, stop: Callable[[], bool], say: Callable[[str], None]) -> None:
    """Be the controller until `stop()`; with `standby`, wait for the lease.

    Raises NotAllowedError when another one has it.
    """
    names = {lease_of(store, LOCAL), lease_of(store, "")}
    held = {name: holder for name in sorted(names) if (holder := store.leases.holder(name))}
    if not standby and len(held) == len(names):
        host, pid, _ = next(iter(held.values())).split("|")
        raise NotAllowedError(
            f"a controller of {store.place} runs already: process {pid} on {host}",
            next_step="--standby waits until that one is gone",
        )
    leaders = {name: Leader(store, name, holder=leader.me(), say=say) for name in names}
    controller = Controller(
        store,
        lambda address: leaders[lease_of(store, address)],
        lambda address: Remote(address, store.home, namespace(store)),
        say=say,
    )
    try:
        _loop(controller, store.watch(), stop, say)
    finally:
        for each in leaders.values():
            each.stop()
        controller.close()


def _loop(
    controller: Controller, changed: Callable[[], bool], stop: Callable[[], bool], say: Callable[[str], None]
) -> None:
    stepped, news = 0.0, True
    while not stop():
        news |= changed()
        since = time.monotonic() - stepped
        if (news and since > _LEAST_S) or since > (_MOST_S if controller.busy else _IDLE_S):
            stepped, news = time.monotonic(), False
            try:
                news = controller.step()
            except StoreAwayError as error:  # what runs goes on; so do we, once it is back
                say(error.message)
        else:
            time.sleep(_LOOK_S)


def stop(store: Store) -> bool:
    """Stop this machine's controller; False when there is none. Nothing that runs is touched."""
    found = running(store)
    if found is None:
        return False
    host, pid, started = found.split("|")
    if host != socket.gethostname() or started_at(int(pid)) != started:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(pid), signal.SIGTERM)
    deadline = time.monotonic() + _STOPPED_WITHIN_S
    while running(store) == found and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
    if running(store) == found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    return True
