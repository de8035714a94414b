"""What the policy answers: who starts where, who yields, what is kept for whom, who is given up, why others wait."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from orchestrator.scheduler.values import Placement


@dataclass(frozen=True)
class Start:
    """Start a run here, all bundles or none."""

    run: str
    kind: str
    """The option that was chosen; `*` where the run accepts every node."""
    placements: tuple[Placement, ...]
    after: tuple[str, ...] = ()
    """Runs that are told to yield these places: start when all of them have gone. Until then the run counts as
    running, and what two hold at once is negative in `Node.free`."""


@dataclass(frozen=True)
class Preempt:
    """Ask a run for a checkpoint, then stop it and put it back into the queue."""

    run: str
    within: float
    """Seconds that it has for the checkpoint; then it is stopped in any case."""
    lost: float
    """GPU-seconds of work since its last checkpoint, which are lost when it does not save another one."""
    reason: str


@dataclass(frozen=True)
class Reserve:
    """These places are kept for a run from this time on."""

    run: str
    at: float
    placements: tuple[Placement, ...]


@dataclass(frozen=True)
class GiveUp:
    """A run that has waited for longer than it may."""

    run: str
    reason: str


@dataclass(frozen=True)
class Wait:
    """Why a run waits, in words, and when it is expected to start."""

    run: str
    reason: str
    expected: float
    """Infinite when it can never start on these nodes."""


def _nothing() -> dict[str, Wait]:
    return {}


@dataclass(frozen=True)
class Plan:
    """One decision."""

    starts: tuple[Start, ...] = ()
    preemptions: tuple[Preempt, ...] = ()
    reservations: tuple[Reserve, ...] = ()
    given_up: tuple[GiveUp, ...] = ()
    more: bool = False
    """Decide again at once when this has been carried out: more could start."""
    explain: Callable[[], Mapping[str, Wait]] = field(default=_nothing, repr=False, compare=False)

    @cached_property
    def waits(self) -> Mapping[str, Wait]:
        """By run: every queued run that neither starts nor is given up. Found when it is first asked for."""
        return self.explain()
