"""What a stage tells the store, over an outage of the store's server: the work goes on meanwhile.

Events of a worker wait in its pipe until they are read. When the store stays away, this node is probably the one that
is cut off, and the stage may be going on elsewhere: then it ends here, training with a checkpoint.
"""

import time
from typing import Any

from orchestrator import processes
from orchestrator.errors import InfrastructureError, WorkerDiedError
from orchestrator.stages.base import Emit
from orchestrator.store.store import Store

OUTAGE_S = 600.0
"""As long as Ray's own workers wait for their head."""
_PAUSE_S = 1.0


def recorder(store: Store, run: str, stage: str, *, outage_s: float = OUTAGE_S) -> Emit:
    """Appends events of the stage. Raises WorkerDiedError after `outage_s` without the store, Stopped before that."""

    def emit(kind: str, /, **data: Any) -> None:
        since = time.monotonic()
        while True:
            try:
                return store.record(kind, run=run, stage=stage, **data)
            except InfrastructureError as error:
                if time.monotonic() - since > outage_s:
                    raise WorkerDiedError(f"cut off from the store: {error.message}", cause="node") from error
                processes.pause(_PAUSE_S)

    return emit
