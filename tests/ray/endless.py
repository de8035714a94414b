"""A stage that goes on until it is stopped."""

import threading
from pathlib import Path

_STOPPED = threading.Event()


def execute(folder: str) -> str:
    """Says that it was stopped."""
    (Path(folder) / "begun").touch()
    _STOPPED.wait(60)
    return "stopped"


def stop() -> None:
    """From another thread."""
    _STOPPED.set()
