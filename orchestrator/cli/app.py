"""The command-line program's root: every command is a few lines in a file of this folder: parse, call, print.

The modules of the commands import what they use inside the functions: `orch --help` must not wait for it.
"""

import os
from pathlib import Path

import typer

app = typer.Typer(
    name="orch",
    help="From an open-weight model and a dataset to a served, measured, reversible release.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def home() -> Path:
    """Folder of the store: $ORCH_HOME, or ~/.orch."""
    return Path(os.environ.get("ORCH_HOME") or Path.home() / ".orch").expanduser().resolve()
