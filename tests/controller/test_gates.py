"""Gates judge a stage's metrics and nothing else."""

import pytest

from orchestrator.controller import gates
from orchestrator.errors import GateFailedError, InputError
from orchestrator.planner.plan import Gate

GATES = [Gate(on="evaluate.exact_match.gain", min=0.2), Gate(on="benchmark.gguf.ttft_p95", max=0.5)]


@pytest.mark.parametrize(("value", "passed"), [(0.2, True), (0.19, False), (1.0, True)])
def test_a_minimum_passes_from_its_value_on(value: float, passed: bool) -> None:
    assert [v.passed for v in gates.judge(GATES, "evaluate", {"exact_match.gain": value})] == [passed]


@pytest.mark.parametrize(("value", "passed"), [(0.5, True), (0.51, False), (float("nan"), False)])
def test_a_maximum_passes_up_to_its_value_and_nan_never(value: float, passed: bool) -> None:
    assert [v.passed for v in gates.judge(GATES, "benchmark", {"gguf.ttft_p95": value})] == [passed]


def test_a_failed_gate_names_itself_its_value_and_its_limit() -> None:
    verdicts = gates.judge(GATES, "evaluate", {"exact_match.gain": 0.1})
    with pytest.raises(GateFailedError, match=r"evaluate.exact_match.gain = 0.1, outside min 0.2"):
        gates.enforce(verdicts)


def test_a_gate_on_something_that_is_not_measured_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"measures no 'exact_match.gain'; did you mean 'exact_match'\?"):
        gates.judge(GATES, "evaluate", {"exact_match": 1.0})


def test_a_gate_on_what_could_not_be_measured_says_why() -> None:
    unmeasured = {"gguf.ttft_p95": "the engine tells no times"}
    with pytest.raises(InputError, match=r"gate on benchmark.gguf.ttft_p95: it was not measured: the engine tells no"):
        gates.judge(GATES, "benchmark", {"gguf.errors": 0.0}, unmeasured)
