"""Gates: pure judgement of one stage's metrics against the limits that the recipe sets."""

from collections.abc import Iterable, Mapping

from orchestrator.config import Model
from orchestrator.errors import GateFailedError, InputError
from orchestrator.planner.plan import Gate
from orchestrator.plugins import nearest


class Verdict(Model):
    """One gate, the value that was measured, and whether it passed."""

    gate: Gate
    value: float
    passed: bool

    def __str__(self) -> str:
        return f"{self.gate.on} = {self.value:.4g}, {'within' if self.passed else 'outside'} {limits(self.gate)}"


def limits(gate: Gate) -> str:
    """`min 0.8`, `max 0.5` or both."""
    bounds = (("min", gate.min), ("max", gate.max))
    return ", ".join(f"{name} {value:g}" for name, value in bounds if value is not None)


def judge(
    gates: Iterable[Gate], stage: str, metrics: Mapping[str, float], unmeasured: Mapping[str, str] | None = None
) -> list[Verdict]:
    """Verdicts of the gates on this stage.

    Raises InputError for a metric that the stage did not measure, with the reason where `unmeasured` has it.
    """
    return [_verdict(gate, metrics, unmeasured or {}) for gate in gates if gate.stage == stage]


def enforce(verdicts: Iterable[Verdict]) -> None:
    """Raises GateFailedError that names every gate that failed, its value and its limit."""
    failed = [str(verdict) for verdict in verdicts if not verdict.passed]
    if failed:
        raise GateFailedError(
            "gate failed: " + "; ".join(failed),
            next_step="the release that served before still serves; see the report, then change the recipe or the gate",
        )


def _verdict(gate: Gate, metrics: Mapping[str, float], unmeasured: Mapping[str, str]) -> Verdict:
    if gate.metric in unmeasured:
        raise InputError(
            f"gate on {gate.on}: it was not measured: {unmeasured[gate.metric]}",
            next_step="remove this gate, or put it on a metric that is measured there",
        )
    if gate.metric not in metrics:
        raise InputError(
            f"gate on {gate.on}: {gate.stage} measures no {gate.metric!r}; {nearest(gate.metric, sorted(metrics))}"
        )
    value = metrics[gate.metric]
    above = gate.min is None or value >= gate.min
    below = gate.max is None or value <= gate.max
    return Verdict(gate=gate, value=value, passed=above and below)
