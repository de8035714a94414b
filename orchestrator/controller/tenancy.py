"""Holding places: what runs in the detached actor of every driver, of a run as of an engine.

It says again and again that it lives, and hears whether its places were taken away. A driver that cannot say so for
LEASE_S ends its process, and with it all that it started: by then somebody else may have its work, and the places.
"""

import contextlib
import os
import sys
import threading
import time
from pathlib import Path

from orchestrator.errors import OrchError, StaleClaimError
from orchestrator.ray import calls
from orchestrator.store.records import Allocation
from orchestrator.store.store import Store

RENEW_S = 5.0
LEASE_S = 90.0
"""Longer than a database server needs for a restart. The controller gives it some seconds more."""
_ENDED = 70


def hold(home: str, owner: str, attempt: int, target: str, *args: object) -> None:
    """Call `target(*args)` while its places are held, and give them back when it returns."""
    store = Store(Path(home))
    mine = next(found for found in store.allocations.of(owner) if found.attempt == attempt)
    done = threading.Event()
    threading.Thread(target=_renew, args=(store, mine, done), daemon=True).start()
    try:
        calls.call({}, target, args)
    finally:
        done.set()
        _give_back(store, mine)


def _renew(store: Store, mine: Allocation, done: threading.Event) -> None:
    renewed = time.monotonic()
    while not done.is_set():
        try:
            store.allocations.renew(mine)
            renewed = time.monotonic()
        except StaleClaimError as error:
            if not done.is_set():
                _end(mine, str(error))
        except OrchError as error:
            print(error, file=sys.stderr)
        if time.monotonic() - renewed > LEASE_S:
            _end(mine, f"the store did not answer for {LEASE_S:.0f} s")
        done.wait(RENEW_S)


def _end(mine: Allocation, why: str) -> None:
    """At once: the guards of our processes end these when they notice."""
    print(f"{mine.name} ends itself: {why}", file=sys.stderr, flush=True)
    os._exit(_ENDED)


def _give_back(store: Store, mine: Allocation) -> None:
    unsaid = {"running": "queued", "cancelling": "cancelled"}.get(store.run_state(mine.owner) or "")
    with contextlib.suppress(StaleClaimError):  # it said itself what became of it
        if unsaid:
            store.allocations.end(mine, "lost", "its driver ended without a word", run=unsaid)
        else:
            store.allocations.end(mine, "finished", "its driver has ended")
