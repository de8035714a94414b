"""A real Ray cluster of several nodes on this machine; their accelerators are declared, not there."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil

from orchestrator.processes import free_port
from orchestrator.ray.connect import listens

ROOT = Path(__file__).parents[2]
FAST = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
}


class Nodes:
    """The head, which has nothing, and nodes that are started and killed by name."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.address = folder, f"127.0.0.1:{free_port()}"
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "PYTHONPATH": str(ROOT),
            **FAST,
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._folders: list[str] = []

    def head(self, **environment: str) -> None:
        """Returns when it listens."""
        port = self.address.rpartition(":")[2]
        where = tempfile.mkdtemp(prefix="r")  # of its own: Ray refuses an address that it has had in the common one
        fixed = ["--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false", f"--temp-dir={where}"]
        self._folders.append(where)
        self._start("head", fixed, environment)
        self._until("head", lambda: listens(self.address))

    def node(self, name: str, *, cpus: int, gpus: int = 0, labels: Mapping[str, str] | None = None) -> None:
        """Returns when it has joined: several at once keep each other from it."""
        shown = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
        arguments = [f"--address={self.address}", f"--num-cpus={cpus}", f"--num-gpus={gpus}"]
        self._start(name, [*arguments, *([f"--labels={shown}"] if shown else [])], {})
        self._until(name, lambda: "Ray runtime started" in (self.folder / f"{name}.log").read_text())

    def kill(self, name: str) -> None:
        """SIGKILL to the node and everything that it started; returns when they have gone."""
        process = self._processes.pop(name)
        victims = _tree(process.pid)
        _signal(victims, signal.SIGKILL)
        process.wait()
        psutil.wait_procs(victims, timeout=10)

    def signal(self, name: str, number: int) -> None:
        """To the node and everything that it started."""
        _signal(_tree(self._processes[name].pid), number)

    def stop(self) -> None:
        """Kill all."""
        for name in list(self._processes)[::-1]:
            self.kill(name)
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _until(self, name: str, started: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not started():
            assert time.monotonic() < deadline, (self.folder / f"{name}.log").read_text()
            time.sleep(0.05)

    def _start(self, name: str, arguments: list[str], environment: Mapping[str, str]) -> None:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [*command, "--object-store-memory=100000000", *arguments],
                stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, **self.environment, **environment},
            )  # fmt: skip


def _tree(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return []


def _signal(processes: list[psutil.Process], number: int) -> None:
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.send_signal(number)


@contextlib.contextmanager
def nodes(folder: Path) -> Iterator[Nodes]:
    """A cluster that has gone afterwards."""
    made = Nodes(folder)
    try:
        yield made
    finally:
        made.stop()
