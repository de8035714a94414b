"""Being the only controller: a lease that a thread renews, so that a long step does not lose it."""

import os
import socket
import threading
from collections.abc import Callable

from orchestrator import processes
from orchestrator.errors import OrchError, StaleClaimError
from orchestrator.store.records import Lease
from orchestrator.store.store import Store

LEASE_S = 15.0


def me() -> str:
    """host:pid:start of this process, by which `orch down` finds it."""
    return f"{socket.gethostname()}|{os.getpid()}|{processes.started_at(os.getpid())}"


class Leader:
    """Takes the lease `name` when it is free, and holds it until `stop`."""

    def __init__(self, store: Store, name: str, *, holder: str, say: Callable[[str], None]) -> None:
        self._store, self._name, self._holder, self._say = store, name, holder, say
        self._lease: Lease | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    @property
    def store(self) -> Store | None:
        """The store, every write of which is refused once somebody else has the lease; None while we do not have it."""
        lease = self._lease
        return self._store.under(lease) if lease else None

    def stop(self) -> None:
        """Let the next one have it at once."""
        self._stopped.set()
        self._thread.join()
        lease, self._lease = self._lease, None
        if lease is not None:
            try:
                self._store.leases.release(lease)
            except OrchError as error:
                self._say(error.message)

    def _keep(self) -> None:
        while True:
            try:
                self._once()
            except StaleClaimError as error:
                self._lease = None
                self._say(error.message)
            except OrchError as error:  # the store is away for a moment: nobody else can take the lease either
                self._say(error.message)
            if self._stopped.wait(LEASE_S / 3):
                return

    def _once(self) -> None:
        if self._lease is not None:
            self._lease = self._store.leases.renew(self._lease, LEASE_S)
        else:
            self._lease = self._store.leases.acquire(self._name, self._holder, LEASE_S)
            if self._lease is not None:
                self._say(f"acts as {self._name!r}, fence {self._lease.fence}")
