"""The errors that a user can meet, each with the exit code that the command ends with.

    OrchError                    5  infrastructure failed
    ├── InputError               2  bad input: a recipe, a file, a data set, a port, a full disk
    │   └── RecipeError          2  every problem of a recipe at once, each with file and line
    ├── NotAllowedError          3  does not fit, or is not allowed
    ├── GateFailedError          4  a gate failed
    ├── BudgetError              4  a running run has used up its budget
    ├── StaleClaimError          5  somebody else has taken over: what was to be written is dropped
    └── InfrastructureError      5  a process, an engine, a node or the network failed
        ├── StoreAwayError       5  the store's server does not answer, or its file stays locked
        ├── WorkerDiedError      5  a stage's process died without a word; the stage is tried again
        └── EngineError          5  a serving engine did not start, died or answered nonsense

A message says what was found, what was needed and what to do next. `as_record` and `from_record` carry an error
over a process boundary without its class being pickled.
"""

import errno
from typing import Any, Literal

Cause = Literal["preempted", "node", "gpu_memory", "host_memory", "hang", "unknown"]
"""What a process died of: it had to make room, its node went away, ..."""


class OrchError(Exception):
    """Base of every expected failure; `next_step` is what the user can do or type now."""

    exit_code = 5

    def __init__(self, message: str, *, next_step: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        return self.message if self.next_step is None else f"{self.message}\n  next: {self.next_step}"

    def as_record(self) -> dict[str, Any]:
        """The error as plain data, for the store or for another process."""
        return {"type": type(self).__name__, "message": self.message, "next_step": self.next_step}


class InputError(OrchError):
    """Something that the user gave cannot be used."""

    exit_code = 2


class RecipeError(InputError):
    """A recipe has problems; the message lists all of them."""


class NotAllowedError(OrchError):
    """The plan does not fit the cluster, or something forbids it."""

    exit_code = 3


class GateFailedError(OrchError):
    """A gate's value is outside its limit."""

    exit_code = 4


class BudgetError(OrchError):
    """A run has lasted longer, or has cost more, than its budget allows; it was stopped and can be resumed."""

    exit_code = 4


class StaleClaimError(OrchError):
    """A newer attempt of a stage, or a newer holder of a lease, has taken over; what was to be written was dropped."""


class InfrastructureError(OrchError):
    """A process, a node, a disk or the network failed; the same command may work later."""


class StoreAwayError(InfrastructureError):
    """The store's server does not answer, or another process keeps its file locked."""


class WorkerDiedError(InfrastructureError):
    """A stage's process was killed, or its node went away."""

    def __init__(
        self, message: str, *, next_step: str | None = None, cause: Cause = "unknown", node: str | None = None
    ) -> None:
        super().__init__(message, next_step=next_step)
        self.cause = cause
        self.node = node
        """Where it died, in the words of whoever placed it."""

    def as_record(self) -> dict[str, Any]:
        return {**super().as_record(), "cause": self.cause, "node": self.node}


class EngineError(InfrastructureError):
    """A serving engine did not start, died, or answered wrongly."""


def disk_full(where: Any) -> InputError:
    """The error for a write that found no space."""
    return InputError(
        f"no space left on the device while writing {where}",
        next_step="free some space, then `orch resume RUN` goes on from the last checkpoint; or set ORCH_HOME to a"
        " larger disk and run again",
    )


def is_disk_full(error: OSError) -> bool:
    """Whether the disk, or the user's quota on it, is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def from_record(record: dict[str, Any]) -> OrchError:
    """The error that `as_record` described; a type that this version does not know becomes an OrchError."""
    kind = {kind.__name__: kind for kind in _tree(OrchError)}.get(record["type"], OrchError)
    about = {"next_step": record.get("next_step")}
    if issubclass(kind, WorkerDiedError):
        about |= {name: record[name] for name in ("cause", "node") if name in record}
    return kind(record["message"], **about)


def _tree(kind: type[OrchError]) -> list[type[OrchError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in _tree(child))]
