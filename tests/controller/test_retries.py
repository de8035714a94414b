"""Whether a stage is tried again."""

import itertools

import pytest

from orchestrator.controller.retries import BUDGETS, Again, Attempt, GiveUp, after, earlier
from orchestrator.errors import Cause, InputError, WorkerDiedError
from orchestrator.store.records import Event


@pytest.mark.parametrize(("cause", "retries"), [("gpu_memory", 2), ("host_memory", 2), ("hang", 2), ("unknown", 3)])
def test_a_cause_has_a_budget_and_then_the_error_says_what_to_do(cause: Cause, retries: int) -> None:
    error, died = WorkerDiedError("killed", cause=cause), list[Attempt]()
    for _ in range(retries):
        assert isinstance(after(died, error), Again)
        died.append(Attempt(cause))
    found = after(died, error)
    assert isinstance(found, GiveUp)
    assert found.error.next_step == BUDGETS[cause].advice
    assert f"{retries + 1} times" in found.error.message


@pytest.mark.parametrize("cause", ["preempted", "node"])
def test_what_the_cluster_does_is_no_fault_of_the_stage_but_each_time_it_waits_longer(cause: Cause) -> None:
    error = WorkerDiedError("gone", cause=cause)
    found = [after([Attempt(cause)] * count, error) for count in range(2000)]
    waits = [again.wait_s for again in found if isinstance(again, Again)]
    assert len(waits) == 2000
    assert waits[:3] == [2, 4, 8]
    assert all(earlier <= later for earlier, later in itertools.pairwise(waits))
    assert waits[-1] == 600


def test_causes_do_not_share_their_budgets() -> None:
    died: list[Attempt] = [Attempt("unknown")] * 3 + [Attempt("node")] * 5
    assert isinstance(after(died, WorkerDiedError("hung", cause="hang")), Again)


def test_what_the_stage_itself_reports_is_final() -> None:
    error = InputError("bad rows")
    assert after([], error) == GiveUp(error)


def test_a_node_on_which_it_has_hung_twice_is_named() -> None:
    hung = WorkerDiedError("hung", cause="hang", node="n1")
    assert after([], hung) == Again(2)
    assert after([Attempt("hang", "n2")], hung) == Again(4)
    assert after([Attempt("hang", "n1")], hung) == Again(4, avoid="n1")
    assert after([Attempt("hang")], WorkerDiedError("hung", cause="hang")) == Again(4), "nobody knows where"


def test_the_attempts_of_a_stage_are_read_from_the_events_since_it_last_ended() -> None:
    hung = WorkerDiedError("hung", cause="hang", node="n1").as_record()
    told = [
        ("train", "stage.pending", hung), ("train", "stage.failed", hung),
        ("train", "stage.pending", {"reason": "the run is resumed"}), ("data", "stage.pending", hung),
        ("train", "stage.pending", {"attempt": 4, **hung}), ("train", "stage.pending", {"reason": "its driver died"}),
    ]  # fmt: skip
    events = [
        Event(id=number, time=0, run="r", stage=stage, service=None, who="me", kind=kind, data=data)
        for number, (stage, kind, data) in enumerate(told)
    ]
    assert earlier(events, "train") == [Attempt("hang", "n1")]
