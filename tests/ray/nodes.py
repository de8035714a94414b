"""A real Ray cluster of several nodes on this machine; their accelerators are declared, not there."""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

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

    def head(self, **environment: str) -> None:
        """Returns when it listens."""
        port = self.address.rpartition(":")[2]
        self._start("head", ["--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false"], environment)
        self._until("head", lambda: listens(self.address))

    def node(self, name: str, *, cpus: int, gpus: int = 0, labels: Mapping[str, str] | None = None) -> None:
        """Returns when it has joined: several at once keep each other from it."""
        shown = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
        arguments = [f"--address={self.address}", f"--num-cpus={cpus}", f"--num-gpus={gpus}"]
        self._start(name, [*arguments, *([f"--labels={shown}"] if shown else [])], {})
        self._until(name, lambda: "Ray runtime started" in (self.folder / f"{name}.log").read_text())

    def kill(self, name: str) -> None:
        """SIGKILL to the node and everything that it started."""
        process = self._processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def pid(self, name: str) -> int:
        """Of its process group."""
        return self._processes[name].pid

    def stop(self) -> None:
        """Kill all."""
        for name in list(self._processes)[::-1]:
            self.kill(name)

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


@contextlib.contextmanager
def nodes(folder: Path) -> Iterator[Nodes]:
    """A cluster that has gone afterwards."""
    made = Nodes(folder)
    try:
        yield made
    finally:
        made.stop()
