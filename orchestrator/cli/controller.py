"""The command `orch controller`: the process that places runs and engines and keeps them going."""

import time
from typing import Annotated

import typer

from orchestrator.cli.app import app, home

Standby = Annotated[bool, typer.Option("--standby", help="Where there is one already, wait until it is gone.")]


@app.command()
def controller(standby: Standby = False) -> None:
    """Be the controller of the store until Ctrl-C or `orch down`; commands that need one start it by themselves."""
    import signal

    from orchestrator.controller import process
    from orchestrator.store.store import Store

    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: stopped.append(received))
    process.serve(Store(home()), standby=standby, stop=lambda: bool(stopped), say=_say)


def _say(line: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}", flush=True)
