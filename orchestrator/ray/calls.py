"""Calling our functions in actors: by their text, `package.module:function`, with plain values.

So nothing is pickled by reference to the caller's own code, and an expected error comes back as data.
"""

import importlib
import os
from collections.abc import Mapping
from typing import Any

from orchestrator.errors import OrchError, from_record


def settings(name: str) -> dict[str, str]:
    """Environment of the actor of that name: who it is in the event log, and the store that its starter uses."""
    return {"ORCH_WHO": name, "ORCH_STORE": os.environ.get("ORCH_STORE", "")}


def call(environment: Mapping[str, str], target: str, args: tuple[Any, ...]) -> Any:
    """The function's value, in this process with this environment."""
    os.environ.update(environment)
    module, function = target.split(":")
    return getattr(importlib.import_module(module), function)(*args)


def answer(environment: Mapping[str, str], target: str, args: tuple[Any, ...]) -> tuple[str, Any]:
    """The same with an OrchError as a record, so that its type survives."""
    try:
        return "value", call(environment, target, args)
    except OrchError as error:
        return "error", error.as_record()


def value(found: tuple[str, Any]) -> Any:
    """What `answer` answered. Raises the OrchError."""
    kind, what = found
    if kind == "error":
        raise from_record(what)
    return what
