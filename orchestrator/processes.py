"""Processes that die with their owner: engines, the gateway and worker programs are started here and nowhere else.

`stop_all` ends what runs now and lets nothing start any more: a process that executes a stage is stopped by it.

(The load generator's client processes end with their stdin by themselves: `loadgen/drive.py`.)
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from orchestrator.guard import CLEANUP_TIMEOUT_S, STACKS_S


class Stopped(BaseException):
    """`stop_all` was called. No Exception, so that nothing that handles failures takes it for one."""


@dataclass(frozen=True)
class GuardedProcess:
    """A command in a process group of its own, under `orchestrator.guard`."""

    _guard: subprocess.Popen[bytes]
    _grace_s: float
    log: Path

    @property
    def pid(self) -> int:
        """Process id of the guard; the command is its only child."""
        return self._guard.pid

    def poll(self) -> int | None:
        """Exit code (128 + N after signal N), or None while it runs."""
        return self._guard.poll()

    def wait(self) -> int:
        """Wait for the end; the exit code."""
        return self._guard.wait()

    def lines(self, *, look_s: float | None = None) -> Iterator[bytes | None]:
        """Lines of stdout, for a process that was started with `events=True`; None after each `look_s` without any."""
        assert self._guard.stdout is not None, "start(..., events=True) gives lines"
        pipe, rest = self._guard.stdout.fileno(), b""
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while True:
                if not selector.select(look_s):
                    yield None
                    continue
                read = os.read(pipe, 65536)
                if not read:
                    break
                *whole, rest = (rest + read).split(b"\n")
                yield from whole
        if rest:
            yield rest

    def terminate(self) -> None:
        """Begin what `stop` does, and return at once."""
        assert self._guard.stdin is not None
        self._guard.stdin.close()

    def stop(self) -> int:
        """SIGTERM to the command; once it ends, or after the grace period, SIGKILL to its group. Waits for the end."""
        self.terminate()
        return self._end(self._grace_s)

    def kill_hung(self) -> int:
        """SIGUSR1, on which a worker writes its stacks into its log, then SIGKILL to its group. Waits for the end."""
        assert self._guard.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it has ended, or is being stopped
            os.write(self._guard.stdin.fileno(), b"k")
        return self._end(STACKS_S)

    def _end(self, grace_s: float) -> int:
        try:
            return self._guard.wait(grace_s + 5)
        except subprocess.TimeoutExpired:  # the guard itself hangs
            for stat in _stats():
                if stat.parent == self.pid:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(stat.session, signal.SIGKILL)
            self._guard.kill()
            return self._guard.wait()

    def cpu_seconds(self) -> float:
        """CPU time of the command and the processes of its session; 0 where the system has no /proc."""
        found = list(_stats())
        sessions = {stat.session for stat in found if stat.parent == self.pid}
        return sum(stat.cpu_s for stat in found if stat.session in sessions)

    def last_lines(self, count: int = 15) -> str:
        """The end of the log, for an error message."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-count:])


def start(
    command: list[str],
    *,
    log: Path,
    environment: Mapping[str, str | None] | None = None,
    grace_s: float = 10,
    events: bool = False,
    directory: Path | None = None,
    cleanup: Sequence[str] = (),
) -> GuardedProcess:
    """Start a command; its output is appended to `log` (with `events`, only stderr, and stdout is read by `lines`).

    A program that does not exist ends at once, with the reason in the log. Variables of `environment` come on top of
    the inherited ones; None takes one away. `cleanup` is a command that runs before it and after its end, whatever
    ended it: for what does not die with a process group, such as a container. Raises Stopped after `stop_all`.
    """
    changed = environment or {}
    # taken away by `env`, for the command alone: the guard may be found by PYTHONPATH itself
    away = [part for name, value in changed.items() if value is None for part in ("-u", name)]
    guard_line = [sys.executable, "-m", "orchestrator.guard", str(grace_s), json.dumps(list(cleanup))]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output, _lock:
        go_on()  # under the lock: what starts now is seen by `stop_all`
        guard = subprocess.Popen(
            [*guard_line, *(["env", *away] if away else []), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if events else output,
            stderr=output,
            env=os.environ | {name: value for name, value in changed.items() if value is not None},
            cwd=directory,
            start_new_session=True,
        )
        started = GuardedProcess(guard, grace_s + (CLEANUP_TIMEOUT_S if cleanup else 0), log)
        _started.add(started)
    return started


_lock = threading.Lock()
_started: "weakref.WeakSet[GuardedProcess]" = weakref.WeakSet()  # a process that nobody holds any more ends by itself
_stopping = threading.Event()


def stop_all() -> None:
    """Stop all processes that were started here, as `stop` does, side by side; from now on none is started any more.

    May be called from any thread; returns when they have ended.
    """
    with _lock:
        _stopping.set()
        running = list(_started)
    for process in running:
        process.terminate()
    for process in running:
        process.stop()


def stopping() -> bool:
    """Whether `stop_all` was called."""
    return _stopping.is_set()


def pause(seconds: float) -> None:
    """Sleep; raises Stopped as soon as `stop_all` is called."""
    _stopping.wait(seconds)
    go_on()


def go_on() -> None:
    """Raises Stopped after `stop_all`: for whatever waits or works without a process of its own."""
    if stopping():
        raise Stopped


def died_of(code: int) -> str:
    """An exit code in words: `SIGKILL (128+9)` or `exit code 3`."""
    if code > 128 and code - 128 in [int(s) for s in signal.Signals]:
        return f"{signal.Signals(code - 128).name}"
    return f"exit code {code}"


def started_at(pid: int) -> str | None:
    """When a process began, in words that only that process has together with its pid; None when there is none."""
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True)
    return shown.stdout.strip() or None


class _Stat(NamedTuple):
    parent: int
    session: int
    cpu_s: float


def _stats() -> Iterator[_Stat]:
    """Of every process that lives, from /proc/PID/stat; its second field is a name in brackets, spaces and all."""
    tick = os.sysconf("SC_CLK_TCK")
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
            yield _Stat(int(fields[1]), int(fields[3]), (int(fields[11]) + int(fields[12])) / tick)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what has just been closed is free
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
