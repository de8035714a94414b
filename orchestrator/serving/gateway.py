"""Asking the gateway what it routes, from any process: is it ours, does it follow, is it idle."""

import http.client
import json
import socket
import time
from pathlib import Path
from typing import Any

from orchestrator.errors import InputError

HOST = "127.0.0.1"
DEFAULT_PORT = 8800


def url(port: int) -> str:
    """The stable base URL."""
    return f"http://{HOST}:{port}/v1"


def routes(port: int) -> dict[str, Any] | None:
    """What the gateway on this port routes; None when nothing answers, or something that is not a gateway."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)  # unlike urllib it obeys no proxy variable
    try:
        connection.request("GET", "/-/routes")
        found = json.load(connection.getresponse())
        return found if isinstance(found, dict) and "services" in found else None
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def is_ours(port: int, home: Path) -> bool:
    """Whether the gateway of this home answers on the port."""
    found = routes(port)
    return found is not None and found.get("home") == str(home)


def check_port(port: int, home: Path) -> None:
    """Raises InputError when something else than this home's gateway listens on the port."""
    if is_ours(port, home):
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise InputError(
                f"port {port} on {HOST}, where the service's URL would be, is in use by another process",
                next_step=f"stop that process, or choose another port: serve.port={port + 1}",
            ) from error


def follows(port: int, service: str, number: int, timeout_s: float = 2.0) -> float | None:
    """Seconds until the gateway routes `service` to that release; None when it did not within the time-out."""
    begun = time.monotonic()
    while time.monotonic() - begun < timeout_s:
        found = routes(port)
        if found is None:
            return None
        if found["services"].get(service) == number:
            return time.monotonic() - begun
        time.sleep(0.005)
    return None


def in_flight(port: int, release: str) -> int:
    """Requests that the gateway still has open on a release; 0 when no gateway answers."""
    found = routes(port) or {"releases": []}
    return sum(entry["in_flight"] for entry in found["releases"] if entry["name"] == release)
