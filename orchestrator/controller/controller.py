"""The controller of a store: one process that keeps every cluster under control, for as long as it has the lease.

It holds nothing that matters: it may be killed at any moment, and the next one goes on from the store and from what the
clusters run. `process.py` starts and stops it.
"""

import time
import traceback
from collections.abc import Callable

from orchestrator.controller.control import Control
from orchestrator.controller.leader import Leader
from orchestrator.controller.tenancy import LEASE_S
from orchestrator.controller.wanted import LOCAL, Reader, Wanted
from orchestrator.errors import InfrastructureError, OrchError, StaleClaimError
from orchestrator.ray.remote import Cluster
from orchestrator.store.store import Store

_LET_GO_S = 60.0
"""A cluster for which nothing is wanted is let go of after this: an agent takes as much memory as we do."""
_UNHEARD_S = 30.0
"""After a longer gap between two rounds drivers get time to be heard again."""
_AGAIN_S, _LONGEST_AGAIN_S = 1.0, 60.0
"""A cluster that is not reached is tried again after this, doubled each time."""
MAX_LOCAL_STARTS = 3
"""Of a machine's own Ray, in a row; then its runs fail with the end of its log."""


class Controller:
    """Call `step` again and again, from one thread."""

    def __init__(
        self,
        store: Store,
        leader: Callable[[str], Leader],
        connect: Callable[[str], Cluster],
        *,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`leader` gives the lease for a cluster's address, `connect` the cluster."""
        self._reader, self._leader, self._connect = Reader(store), leader, connect
        self._say, self._clock = say, clock
        self._controls: dict[str, Control] = {}
        self._used: dict[str, float] = {}
        self._failed: dict[str, tuple[int, float]] = {}
        self._stepped, self._patient_until = clock(), clock() + LEASE_S
        self.busy = False
        """Whether something waits or is being changed, so that rounds should follow soon."""

    def step(self) -> bool:
        """One round over all clusters; whether another one should follow at once."""
        now = self._clock()
        if now - self._stepped > _UNHEARD_S:
            self._patient_until = now + LEASE_S
        self._stepped = now
        again, self.busy = False, False
        for address, wanted in self._reader.read().items():
            store = self._leader(address).store
            if store is not None and wanted.anything:
                again |= self._step(store, address, wanted, now)
                self.busy |= bool(wanted.waiting or wanted.adrift)
        self._let_go(now)
        return again

    def close(self) -> None:
        """Let go of all clusters; what runs there goes on."""
        for control in self._controls.values():
            control.cluster.close()
        self._controls.clear()

    def _step(self, store: Store, address: str, wanted: Wanted, now: float) -> bool:
        self._used[address] = now
        failures, at = self._failed.get(address, (0, 0.0))
        if now < at:
            return False
        if address not in self._controls:
            self._controls[address] = Control(self._connect(address), self._clock)
        try:
            again = self._controls[address].step(store, wanted, patient=now < self._patient_until)
        except StaleClaimError as error:  # somebody else acts now
            self._say(error.message)
            return False
        except InfrastructureError as error:
            self._say(error.message)
            wait = min(_AGAIN_S * 2**failures, _LONGEST_AGAIN_S)
            self._failed[address] = failures + 1, now + wait
            if address == LOCAL and failures + 1 >= MAX_LOCAL_STARTS:
                self._fail_all(store, wanted, error)
            return False
        except OrchError as error:  # a run was cancelled between reading and writing: the next round sees it
            self._say(error.message)
            return True
        except Exception:  # a defect of ours must not keep the other clusters from being looked after
            self._say(traceback.format_exc())
            self._failed[address] = failures + 1, now + _LONGEST_AGAIN_S
            return False
        self._failed.pop(address, None)
        return again

    def _fail_all(self, store: Store, wanted: Wanted, error: OrchError) -> None:
        """A machine whose Ray does not start cannot run anything; waiting would not help."""
        for asked in wanted.waiting:
            if asked.is_run:
                store.move_run(asked.run.id, "failed", error=error)

    def _let_go(self, now: float) -> None:
        for address in [address for address in self._controls if now - self._used[address] > _LET_GO_S]:
            self._controls.pop(address).cluster.close()
