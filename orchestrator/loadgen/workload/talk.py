"""What every kind of workload gives: talks of one turn or several, whose texts are made when they are asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Messages = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a talk."""

    prompt: int
    """Number of the prompt among the workload's distinct ones."""
    input_tokens: int | None = None
    """Wanted: new tokens of this turn, in the first one with template and nonce; None: as the text happens to be."""
    output_tokens: int | None = None
    """Wanted exactly; None: up to the limit of the run."""
    think_s: float = 0.0
    """Pause before it."""


@dataclass(frozen=True, slots=True)
class Talk:
    """One conversation, or one single request."""

    turns: tuple[Turn, ...]
    opening: Callable[[], Messages]
    """The messages of turn 0, with the nonce's mark where the workload wants one."""
    later: Callable[[int], str] = str
    """The user's text of a later turn."""
    at: float | None = None
    """Seconds after the start, where a trace says so."""
    prefix: int = -1
    """Number of its shared prefix; -1: none."""
