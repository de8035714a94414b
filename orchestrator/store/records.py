"""What the store holds, as frozen values, and the legal moves of each kind as a table."""

from typing import Any, Literal

from pydantic import SecretStr

from orchestrator.config import Model

RUN_MOVES: dict[str, set[str]] = {
    "queued": {"running", "cancelled", "failed"},
    "running": {"succeeded", "failed", "cancelling", "queued"},
    "cancelling": {"cancelled", "failed", "succeeded"},
    "failed": {"queued"},
    "cancelled": {"queued"},
    "succeeded": set(),
}
"""A running run goes back into the queue when it yields, when its next stages need other places, or when its driver was
lost."""
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
SCHEDULE_RUN_MOVES: dict[str, set[str]] = {
    "queued": {"running", "skipped", "missed"},
    "running": {"succeeded", "failed"},
    "succeeded": set(),
    "failed": set(),
    "skipped": set(),
    "missed": set(),
}
"""skipped: an earlier tick had not ended; missed: no scheduler ran at its time."""

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
    queued: float | None = None
    """Since when it has been in the queue, or was when it left it last."""
    wait: dict[str, Any] | None = None
    """What it waits for: `reason` in words, and `expected`, the time at which it will probably start, if known."""


class Waiting(Model):
    """A run that has not ended, without its plan, which is large."""

    id: str
    state: str
    owner: str
    created: float
    queued: float | None


ENGINE = "engine-"
"""Before the name of a release: the owner of its engine's places."""


class Place(Model):
    """Where one bundle lies: a node of the cluster, and the indices of its accelerators there."""

    node: str
    gpus: tuple[int, ...] = ()


class Bundle(Model):
    """What each place of an allocation gives."""

    num_cpus: float = 0
    num_gpus: float = 0


class Allocation(Model):
    """Places of an owner: a run by its id, or `engine-SERVICE@NUMBER`. The attempt is a fence: it only grows."""

    owner: str
    attempt: int
    cluster: str
    """Address of the Ray cluster."""
    state: str
    """held, yielding (it was told to go, `until` then), or ended."""
    kind: str
    """Of its accelerators."""
    bundle: Bundle
    placements: list[Place]
    created: float
    renewed: float
    """Its driver's last sign of life, by the database's clock."""
    begun: bool
    """Whether its driver has ever given one."""
    until: float | None
    ended: float | None
    cause: str | None
    """Why it ended, as a word of `controller.recovery`."""
    reason: str | None
    """The same for people."""

    @property
    def name(self) -> str:
        """Of its placement group and of its driver's actor."""
        return f"{self.owner}.{self.attempt}"

    @property
    def is_engine(self) -> bool:
        """Whether the engine of a release holds it."""
        return self.owner.startswith(ENGINE)


def release_of(owner: str) -> tuple[str, int]:
    """(service, number) of the release whose engine holds places."""
    service, _, number = owner.removeprefix(ENGINE).rpartition("@")
    return service, int(number)


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


class Claim(Model):
    """The right to say what became of one attempt of a stage; the next attempt's claim ends it."""

    run: str
    stage: str
    fence: int
    """Number of the attempt: it only grows, over all resumptions of the run."""


class Lease(Model):
    """The right to act under a name until it expires, unless it is renewed; a later holder's has a larger fence."""

    name: str
    holder: str
    fence: int
    expires: float
    """Seconds since 1970 by the database's clock."""


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
    request_fields: dict[str, Any] | None = None
    """What each request to its engine must say besides, such as the adapter; of the engine that answers now."""

    @property
    def name(self) -> str:
        """`service@number`."""
        return f"{self.service}@{self.number}"


class Baseline(Model):
    """The benchmark that those of a name or of a service are compared with."""

    name: str
    """Of benchmarks, or of a service."""
    benchmark: str
    """Id of a benchmark."""
    time: float
    who: str


class Schedule(Model):
    """A command that runs at the times of a cron expression."""

    name: str
    cron: str
    timezone: str
    """In which the expression is read, such as Europe/Berlin."""
    command: list[str]
    """Arguments of `orch`."""
    cwd: str
    paused: bool = False
    webhook: SecretStr | None = None
    """Told of failures; a secret, since such a URL often holds a token."""
    missed: Literal["skip", "run_once"] = "skip"
    """What happens when ticks passed while no scheduler ran."""
    overlap: Literal["skip", "queue"] = "skip"
    """What happens at a tick when the one before has not ended; at most one waits."""
    created: float
    next_tick: float


class ScheduleRun(Model):
    """One tick of a schedule and what became of it."""

    id: int
    schedule: str
    tick: float
    """When it was due."""
    state: str
    reason: str | None
    started: float | None
    ended: float | None
    exit_code: int | None
    pid: int | None
    log: str | None
    """File with what the command printed."""
