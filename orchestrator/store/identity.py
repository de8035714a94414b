"""Who is acting, for the event log and as the owner of runs."""

import getpass
import os
import socket

VARIABLE = "ORCH_WHO"
"""Name of the component that this process is, such as `scheduler`; set where it is started, and inherited."""


def who() -> str:
    """The component that this process is, or else the user at their machine, such as `ann@node-3`."""
    return os.environ.get(VARIABLE) or user()


def user() -> str:
    """The user at their machine, such as `ann@node-3`."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "unknown"
    return f"{name}@{socket.gethostname()}"
