"""The controller's hands on one cluster: a process that is a driver of its Ray, told what to do by lines of JSON.

    python -m orchestrator.ray.agent ADDRESS HOME NAMESPACE        # ADDRESS may be `local`: started if it does not run

A process of its own, since Ray ends the process of a driver that has lost its head, and may hang in a call for ever.
It ends with its standard input. `ray.remote` is the other side.
"""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from orchestrator.errors import InfrastructureError, OrchError
from orchestrator.ray import connect


def main(address: str, home: Path, namespace: str) -> None:
    """Answer every line of standard input with one line; the first line says that Ray is reached."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    try:
        if address == "local":
            address = connect.start_head(home, num_cpus=os.cpu_count() or 1)
        connect.check_listens(address)  # Ray itself tries for minutes
        with connect.connected(address, home, namespace):
            _say(answers, {"value": None})
            for line in sys.stdin:
                _say(answers, _done(json.loads(line)))
    except OrchError as error:
        _say(answers, {"error": error.as_record()})


def _done(request: dict[str, Any]) -> dict[str, Any]:
    from orchestrator.ray import places

    try:
        return {"value": getattr(places, request.pop("do"))(**request)}
    except Exception as error:  # whatever Ray raises: the other side must hear of it
        traceback.print_exc()
        return {"error": InfrastructureError(f"Ray failed: {error!r}").as_record()}


def _say(answers: Any, what: dict[str, Any]) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
