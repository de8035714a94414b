"""Records and measurements made by hand, in seconds, for tests of what is computed from them."""

from array import array
from collections.abc import Iterable, Sequence
from typing import Any

from orchestrator.loadgen.load import Measurement, WorkerReport
from orchestrator.loadgen.record import Record

EPOCH = 1_700_000_000_000_000_000
"""Second 0 of the tests; ns of the real-time clock, so that rounding is as it will be."""


def at(seconds: float) -> int:
    """That moment as ns."""
    return EPOCH + round(seconds * 1e9)


def record(sent: float = 0.0, content: Sequence[float] = (), ended: float | None = None, **changes: Any) -> Record:
    """A success unless said otherwise: deltas at `content`, one token each, all as seconds of the test's clock."""
    last = ended if ended is not None else (content[-1] if content else sent)
    fields: dict[str, Any] = {
        "index": 0,
        "prompt": 0,
        "intended": at(sent),
        "sent": at(sent),
        "ended": at(last),
        "content": array("q", map(at, content)),
        "first_chunk": at(content[0]) if content else 0,
        "prompt_tokens": 10,
        "completion_tokens": len(content),
        "finish_reason": "length",
        "done": True,
        "status": 200,
    }
    return Record(**fields | changes)


def failed(sent: float, kind: str, ended: float | None = None, **changes: Any) -> Record:
    """A request that failed."""
    changes = {"error": kind, "completion_tokens": None, "finish_reason": None, "done": False, "status": 0} | changes
    return record(sent, ended=sent if ended is None else ended, **changes)


def measurement(records: Iterable[Record], start: float, end: float, **changes: Any) -> Measurement:
    """The records with a steady window, from one client process that was not the limit."""
    worker = WorkerReport(0.3, 1e-5, 2e-4, 1e-4, kernel_timestamps=True, peak_memory=80_000_000)
    fields: dict[str, Any] = {"workers": [worker], "client_limited": False}
    return Measurement(records=list(records), start=at(start), end=at(end), **fields | changes)
