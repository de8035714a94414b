"""Starting, finding and stopping Ray.

A local Ray is one `ray start --block` process of ours, detached from the terminal, that `$ORCH_HOME/ray.json`
describes; `orch down` ends it. It needs a token (RAY_AUTH_MODE=token), kept in `$ORCH_HOME/ray-token`.
"""

import contextlib
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from filelock import FileLock

from orchestrator.errors import InfrastructureError
from orchestrator.processes import free_port, started_at

NAMESPACE = "orch"
_OBJECT_STORE_BYTES = 100_000_000  # only small values pass through Ray: artifacts are files
_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 30.0


def address_of_head(home: Path) -> str | None:
    """Address of this home's local Ray, or None when it does not run."""
    found = _description(home)
    return found["address"] if found and _alive(found["pid"]) and listens(found["address"]) else None


def check_listens(address: str) -> None:
    """Raises InfrastructureError when nothing listens at a cluster's address, which is probably a slip."""
    if address == "local" or listens(address):
        return
    raise InfrastructureError(
        f"cannot reach Ray at {address}: nothing listens there",
        next_step=f"is it up? `ray status --address {address}`",
    )


def start_head(home: Path, *, num_cpus: int) -> str:
    """Start a local Ray unless one runs; its address. Raises InfrastructureError with the end of its log.

    `num_cpus` is what Ray may hand out, at least 2: on one core a warm engine's share would block every stage.
    """
    with FileLock(home / "ray.lock"):  # two commands at once must not start two
        return address_of_head(home) or _start_head(home, num_cpus)


def _start_head(home: Path, num_cpus: int) -> str:
    port, log = free_port(), home / "ray.log"
    environment = _environment(home)
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"),
        *("--node-ip-address=127.0.0.1", "--include-dashboard=false", "--disable-usage-stats"),
        f"--num-cpus={max(2, num_cpus)}",
        f"--object-store-memory={_OBJECT_STORE_BYTES}",
    ]
    with log.open("ab") as output:
        head = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            env={**os.environ, **environment},
        )  # fmt: skip
    address = f"127.0.0.1:{port}"
    described = {"address": address, "pid": head.pid, "started": started_at(head.pid)}
    (home / "ray.json").write_text(json.dumps(described))
    _wait_until_up(head, address, log)
    return address


def stop_head(home: Path) -> bool:
    """Stop this home's local Ray and everything that it runs; False when none ran."""
    found = _description(home)
    if found is None:
        return False
    (home / "ray.json").unlink(missing_ok=True)
    if started_at(found["pid"]) != found["started"]:  # after a reboot the pid is somebody else's
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(found["pid"], signal.SIGTERM)
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        while _alive(found["pid"]) and time.monotonic() < deadline:
            time.sleep(0.1)
        with contextlib.suppress(PermissionError):  # macOS says so of a group of zombies
            os.killpg(found["pid"], signal.SIGKILL)
    return True


@contextlib.contextmanager
def connected(address: str, home: Path, namespace: str = NAMESPACE) -> Any:
    """Be a Ray driver for a while, among the actors of a namespace.

    Raises InfrastructureError when the cluster does not answer.
    """
    os.environ.update(_environment(home) if address_of_head(home) == address else {})
    import ray

    try:
        ray.init(address=address, namespace=namespace, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, TimeoutError) as error:
        raise InfrastructureError(
            f"cannot reach Ray at {address}: {error}",
            next_step=f"is it up, and is its token here (RAY_AUTH_MODE=token)? `ray status --address {address}`",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _environment(home: Path) -> dict[str, str]:
    token = home / "ray-token"
    if not token.exists():
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # guards stop our processes gently when their owners die
    }


def _description(home: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((home / "ray.json").read_text())
        return found
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def listens(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=2):
        return True
    return False


def _alive(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # where it is our own child, its zombie must not count as alive
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):  # gone, or by now the pid of another user's process
        return False
    return True


def _wait_until_up(head: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not listens(address):
        if head.poll() is not None or time.monotonic() > deadline:
            head.kill()
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise InfrastructureError(f"Ray did not start:\n{tail}", next_step=f"the whole log: {log}")
        time.sleep(0.05)
