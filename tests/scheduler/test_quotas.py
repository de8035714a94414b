"""Quotas: owners first, borrowers by how little they have, limits kept and explained."""

from states import nodes, run, running, started, state

from orchestrator.scheduler.policy import decide
from orchestrator.scheduler.values import Quota


def test_an_owner_goes_before_a_borrower():
    quotas = {"a": Quota(8.0), "b": Quota(0.0)}
    queued = [run("borrowed", 8, team="b", seconds=60.0), run("owned", 8, team="a")]
    assert set(started(decide(state(nodes(1), queued, quotas=quotas)))) == {"owned"}


def test_what_is_idle_may_be_borrowed_up_to_the_limit():
    quotas = {"a": Quota(8.0), "b": Quota(2.0, borrow=2.0)}
    plan = decide(state(nodes(1), [run(f"b{i}", 2, team="b") for i in range(3)], quotas=quotas))
    assert len(plan.starts) == 2
    (wait,) = plan.waits.values()
    assert wait.reason == "quota: team b holds 4 GPUs, owns 2 and may borrow 2; this run needs 2"


def test_of_two_borrowers_the_one_with_less_goes_first():
    quotas = {"a": Quota(2.0), "b": Quota(2.0)}
    entries = [
        running(run("had", 4, team="a"), ("H100-0", (0, 1, 2, 3))),
        running(run("few", 2, team="b"), ("H100-0", (4, 5))),
    ]
    queued = [run("more-a", 2, team="a", seconds=60.0), run("more-b", 2, team="b")]
    assert set(started(decide(state(nodes(1), queued, entries, quotas=quotas)))) == {"more-b"}


def test_without_quotas_nobody_is_limited():
    assert len(decide(state(nodes(1), [run(f"r{i}", 2, team="a") for i in range(4)])).starts) == 4
