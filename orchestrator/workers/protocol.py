"""How a worker program talks to the stage that started it.

`python -m orchestrator.workers.NAME REQUEST RESULT`: REQUEST is a JSON file; events leave as JSON lines on stdout;
RESULT is written last, in one step; an expected failure leaves as an `error` event and its exit code. Everything
else that a library prints goes to stderr, which is the stage's log.

A worker that is silent for too long is taken for hung and killed (`controller/heartbeat.py`): `main` says how long it
may be, any event breaks the silence. SIGUSR1 writes the stacks of all threads into the log.
"""

import contextlib
import faulthandler
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from orchestrator.errors import OrchError, disk_full, is_disk_full
from orchestrator.fencing import Writer, publish

_events = os.dup(1)
PEAK_MEMORY = "peak_memory"
"""Key of every result."""


def emit(kind: str, /, **data: Any) -> None:
    """Send one event to the stage; without an owner nobody hears it, and there is a checkpoint to save all the same."""
    with contextlib.suppress(BrokenPipeError):
        os.write(_events, (json.dumps({"kind": kind, **data}) + "\n").encode())


def may_be_silent(at_most_s: float) -> None:
    """From now on we may take so long without an event."""
    emit("silence", at_most_s=at_most_s)


def steps_follow() -> None:
    """From now on there is a `progress` event for every step; how long one may take follows from those before."""
    emit("silence", at_most_s=None)


def main(work: Callable[[dict[str, Any]], dict[str, Any]], *, silent_s: float = 3600.0) -> None:
    """Run `work` on the request named on the command line and write its result; exits the process.

    `silent_s`: the longest that it takes between two events, on a slow disk and with the largest model.
    """
    os.dup2(2, 1)  # a library's print must not be read as an event
    faulthandler.register(signal.SIGUSR1)  # in the handler itself: works while Python is stuck in a library
    may_be_silent(silent_s)
    request_path, result_path = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        # a worker that lost its owner may still be writing its last checkpoint: the next one waits for it
        lock = FileLock(result_path.with_suffix(".lock"))
        lock.acquire()
        request = json.loads(request_path.read_text())
        writer = writer_of(request)
        if writer:
            writer.check()  # while we waited for it, the next one may have begun
        result = {**work(request), PEAK_MEMORY: peak_memory()}
        partial = result_path.with_suffix(".partial")
        partial.write_text(json.dumps(result))
        publish(partial, result_path, writer)
    except OrchError as error:
        _fail(error)
    except OSError as error:
        if not is_disk_full(error):
            raise
        traceback.print_exc()
        _fail(disk_full(error.filename or result_path.parent))
    sys.stdout.flush()
    os._exit(0)  # skips slow interpreter teardown of torch; the result is already on disk


def writer_of(request: dict[str, Any]) -> Writer | None:
    """The attempt that we work for; None where nobody else can."""
    return Writer.model_validate(request["writer"]) if request.get("writer") else None


def peak_memory() -> dict[str, int]:
    """The most that this process held, in bytes: on an accelerator by torch's own counters, reserved and allocated;
    `rss` is its main memory, and on a CPU all there is.
    """
    found = {"rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        devices = range(torch.cuda.device_count())
        found["reserved"] = max(torch.cuda.max_memory_reserved(device) for device in devices)
        found["allocated"] = max(torch.cuda.max_memory_allocated(device) for device in devices)
    return found


def _fail(error: OrchError) -> None:
    emit("error", **error.as_record())
    sys.stdout.flush()
    os._exit(error.exit_code)
