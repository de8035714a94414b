"""What the store holds, as frozen values, and the legal moves of each kind as a table."""

from typing import Any

from orchestrator.config import Model

RUN_MOVES: dict[str, set[str]] = {
    "queued": {"running", "cancelled", "failed"},
    "running": {"succeeded", "failed", "cancelling"},
    "cancelling": {"cancelled", "failed", "succeeded"},
    "failed": {"queued"},
    "cancelled": {"queued"},
    "succeeded": set(),
}
STAGE_MOVES: dict[str, set[str]] = {
    "pending": {"running", "reused"},
    "running": {"succeeded", "failed", "cancelled", "pending"},
    "failed": {"pending"},
    "cancelled": {"pending"},
    "succeeded": {"pending"},
    "reused": {"pending"},
}
"""A success goes back to pending when a resumed run finds that it does not stand any more (an engine is gone)."""
RELEASE_MOVES: dict[str, set[str]] = {
    "starting": {"warm", "failed", "stopped", "rejected"},
    "warm": {"starting", "failed", "stopped", "rejected"},
    "failed": {"starting", "stopped"},
    "stopped": {"starting"},
    "rejected": {"starting"},
}
"""warm: an engine answers for it; rejected: a gate refused it; stopped: no engine runs, it can be started again."""

ENDED = {"succeeded", "failed", "cancelled"}


class Run(Model):
    """One execution of a plan."""

    id: str
    name: str
    state: str
    owner: str
    plan: dict[str, Any]
    created: float
    started: float | None
    ended: float | None
    error: dict[str, Any] | None


class StageRun(Model):
    """One stage of one run; `outputs` is a `stages.base.Outputs` as JSON."""

    run: str
    stage: str
    position: int
    digest: str
    state: str
    attempts: int
    started: float | None
    ended: float | None
    outputs: dict[str, Any] | None
    error: dict[str, Any] | None


class Event(Model):
    """Something that happened: append only."""

    id: int
    time: float
    run: str | None
    stage: str | None
    service: str | None
    who: str
    kind: str
    data: dict[str, Any]


class Service(Model):
    """A stable name; `current` is the release that answers for it, `version` counts the switches."""

    name: str
    current: int | None
    version: int


class Release(Model):
    """An immutable, numbered release of a service and the engine that answers for it now."""

    service: str
    number: int
    digest: str
    run: str
    state: str
    spec: dict[str, Any]
    url: str | None
    """Base URL of its engine, such as http://127.0.0.1:41231/v1, while it is warm."""
    model: str | None
    pid: int | None
    created: float
    promoted: float | None
    withdrawn: bool
    """Rolled back from: a later rollback does not choose it again."""

    @property
    def name(self) -> str:
        """`service@number`."""
        return f"{self.service}@{self.number}"
