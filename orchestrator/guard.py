"""`python -m orchestrator.guard GRACE_S CLEANUP COMMAND...` runs COMMAND and stops its group when the owner dies.

The owner holds the other end of our stdin: when it closes it, or is killed in any way, the pipe ends, and the command
gets SIGTERM. Once it has ended, or after GRACE_S seconds, its whole group gets SIGKILL (systemd calls this `mixed`): a
server like vLLM drains its requests only while the processes that it started live. A byte on our stdin says that the
command hangs: it gets SIGUSR1, on which a worker writes its stacks into its log, and its group SIGKILL right after.
On Linux the command dies too if this process is killed itself. CLEANUP, a JSON list, is a command that runs before it
and after its end.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading

CLEANUP_TIMEOUT_S = 30.0
STACKS_S = 1.0
"""For a command that hangs to write its stacks."""
_PR_SET_PDEATHSIG = 1


def _new_group() -> None:
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _stop_when_owner_is_gone(child: subprocess.Popen[bytes], grace_s: float) -> None:
    hangs = bool(os.read(0, 1))
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGUSR1 if hangs else signal.SIGTERM)
    try:
        child.wait(STACKS_S if hangs else grace_s)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)


def main() -> int:
    """Exit code of the command; 128 + N where signal N ended it, as a shell says it."""
    grace_s, cleanup, command = float(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a Ctrl-C is the owner's business
    _clean(cleanup)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_child_setup)
    threading.Thread(target=_stop_when_owner_is_gone, args=(child, grace_s), daemon=True).start()
    code = child.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)  # what the command left behind
    _clean(cleanup)
    return code if code >= 0 else 128 - code


def _clean(command: list[str]) -> None:
    """Most often there is nothing to clean, and it fails; one that hangs must not keep us."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        if command:
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=CLEANUP_TIMEOUT_S)


def _child_setup() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _new_group()


if __name__ == "__main__":
    sys.exit(main())
