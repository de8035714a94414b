"""Whether a worker hangs, from what it says and when: pure, the clock is passed in.

Ray does not notice a process that is stopped, deadlocked, or waits for ever for the other ranks of a collective. A
worker says how long it may be silent (`workers/protocol.py`), and in the training loop it says every step. One step
may take ten times the median, or five minutes where that is longer: checkpoints and slow storage are no hang.
"""

import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SILENCE = "silence"
"""Kind of the events in which a worker says how long it may be silent; `at_most_s` is None where steps follow."""
_ENOUGH = 3
"""Steps whose times are known, before which there is no median to go by: the first ones also load and compile."""
_KEPT = 100


@dataclass(frozen=True)
class Patience:
    """How long a worker may be silent, in seconds."""

    start_s: float = 3600.0
    """Until it has said how long itself, and until the time of a step is known."""
    medians: float = 10.0
    """Median times of a step that one step may take."""
    step_s: float = 300.0
    """What one step may take in any case."""
    look_s: float = 5.0
    """How often somebody looks."""


class Heartbeat:
    """What one worker has said. Times are seconds of any clock that only goes on."""

    def __init__(self, patience: Patience, now: float) -> None:
        self._patience = patience
        self._heard = self._looked = now
        self._allowed: float | None = patience.start_s
        self._step_times: deque[float] = deque(maxlen=_KEPT)
        self.last: tuple[int, int] | None = None
        """Last step and number of steps, once there was one."""

    def heard(self, kind: str, data: Mapping[str, Any], now: float) -> None:
        """The worker has sent this event. Within steps only they count: a loop may go on complaining while it hangs."""
        self.looked(now)
        in_steps = self._allowed is None
        if kind == SILENCE:
            self._allowed = data["at_most_s"]
        elif kind == "progress" and {"step", "steps"} <= data.keys():
            self.last = (data["step"], data["steps"])
            if in_steps:
                self._step_times.append(now - self._heard)
        elif in_steps:
            return
        self._heard = now

    def looked(self, now: float) -> None:
        """We are awake. If we were not for a while (the whole node was stopped), that is no silence of the worker."""
        away = now - self._looked - 2 * self._patience.look_s
        if away > 0:
            self._heard += away
        self._looked = now

    def hung(self, now: float) -> str | None:
        """What is wrong, or None while the worker may be silent."""
        allowed = limit_s(self._step_times, self._patience) if self._allowed is None else self._allowed
        silent = now - self._heard
        if silent <= allowed:
            return None
        what = "no word" if self._allowed is not None else "no step"
        last = f"last step {self.last[0]} of {self.last[1]}" if self.last else "before its first step"
        return f"hung: {what} for {silent:.0f} s (allowed: {allowed:.0f} s), {last}"


def limit_s(step_times: Sequence[float], patience: Patience) -> float:
    """How long the next step may take, after those that took so many seconds."""
    if len(step_times) < _ENOUGH:
        return patience.start_s
    return max(patience.medians * statistics.median(step_times), patience.step_s)
