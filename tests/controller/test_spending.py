"""A budget while a run goes on: what counts, what stops it, and how it goes on."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.clusters.cluster import Cluster
from orchestrator.controller import runs, spending
from orchestrator.controller.drive import drive
from orchestrator.controller.spending import Watch
from orchestrator.errors import InputError, from_record
from orchestrator.planner.estimate import Unknown
from orchestrator.planner.forecast import BudgetForecast, Forecast, Price
from orchestrator.planner.money.budget import Budget
from orchestrator.planner.plan import Plan, PlannedStage, Resources
from orchestrator.store.records import Claim, Event
from orchestrator.store.store import Store
from orchestrator.units import Seconds, Usd

STAGES = ("prepare", "data", "train")
UNKNOWN = Unknown(reason="unknown")


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _plan(usd_per_hour: float | None = 3600.0, **limits: Any) -> Plan:
    price = None
    if usd_per_hour is not None:
        price = Price(usd_per_hour=usd_per_hour, low=1, high=1, term="cluster", source="x")
    budget = BudgetForecast(budget=Budget(**limits)) if limits else None
    return Plan(
        recipe="demo",
        path="demo.yaml",
        directory="/",
        cluster=Cluster(name="x", address="127.0.0.1:1"),
        accelerator=None,
        stages=[PlannedStage(name=n, config={}, digest=f"{n}-digest", resources=Resources()) for n in STAGES],
        gates=[],
        service=None,
        obstacles=[],
        forecast=Forecast(time=UNKNOWN, cost=UNKNOWN, price=price, budget=budget),
    )


def _event(kind: str, time: float) -> Event:
    return Event(id=1, time=time, run="r", stage=None, service=None, who="x", kind=kind, data={})


def test_only_the_time_in_which_a_run_was_running_counts() -> None:
    events = [
        _event("run.queued", 0),
        _event("run.running", 10),
        _event("run.failed", 40),
        _event("run.queued", 900),
        _event("run.running", 1000),
    ]
    assert spending.lasted(events, 1005) == 35
    assert spending.lasted(events[:3], 5000) == 30
    assert spending.lasted(events[:1], 5000) == 0


def test_a_watch_speaks_when_the_money_or_the_time_is_used_up() -> None:
    clock = Clock()
    dear = Watch(_plan(max_cost_usd=Usd(30)), [], clock)
    slow = Watch(_plan(usd_per_hour=None, max_duration=Seconds(30), max_cost_usd=Usd(1)), [], clock)
    none = Watch(_plan(), [], clock)
    clock.now += 29
    assert (dear.reason(), slow.reason()) == (None, None)
    clock.now += 2
    assert dear.reason() == "the run has cost $31.00; budget.max_cost_usd is $30.00"
    assert slow.reason() == "the run has lasted 31 s; budget.max_duration is 30 s"
    assert none.reason() is None


def test_a_run_over_its_budget_stops_as_failed_with_exit_code_4_and_goes_on_with_a_larger_one(tmp_path: Path) -> None:
    clock = Clock()
    store = Store(tmp_path, clock=clock)
    run, done = runs.create(store, _plan(max_cost_usd=Usd(30))), list[str]()

    def execute(store: Store, claim: Claim, planned: PlannedStage) -> dict[str, Any] | None:
        done.append(planned.name)
        clock.now += 20  # $20
        return None if planned.name == "data" else {"artifacts": {}, "metrics": {}, "report": {}}

    drive(str(tmp_path), run, execute, clock)
    found = store.run(run)
    assert (found.state, done) == ("failed", ["prepare", "data"])
    assert found.error is not None
    failure = from_record(found.error)
    assert failure.exit_code == 4
    assert "the run has cost $40.00" in failure.message
    assert f"orch resume {run} budget.max_cost_usd=60" in str(failure)
    assert [row.state for row in store.stage_runs(run)] == ["succeeded", "cancelled", "pending"]

    typed = str(failure).split(run)[1].strip(" `").split()
    runs.resume(store, run, typed)
    done.clear()

    def finish(store: Store, run: str, planned: PlannedStage) -> dict[str, Any] | None:
        done.append(planned.name)
        return {"artifacts": {}, "metrics": {}, "report": {}}

    clock.now += 10_000  # nothing is paid for while it stands
    drive(str(tmp_path), run, finish, clock)
    assert (store.run(run).state, done) == ("succeeded", ["data", "train"])


def test_a_budget_that_is_used_up_between_two_stages_starts_nothing_more(tmp_path: Path) -> None:
    clock, done = Clock(), list[str]()
    run = runs.create(Store(tmp_path, clock=clock), _plan(max_duration=Seconds(10)))

    def execute(store: Store, claim: Claim, planned: PlannedStage) -> dict[str, Any] | None:
        done.append(planned.name)
        clock.now += 11
        return {"artifacts": {}, "metrics": {}, "report": {}}

    drive(str(tmp_path), run, execute, clock)
    assert done == ["prepare"]
    assert Store(tmp_path).run(run).state == "failed"


def test_a_cancelled_run_is_cancelled_and_not_over_its_budget(tmp_path: Path) -> None:
    clock = Clock()
    store = Store(tmp_path, clock=clock)
    run = runs.create(store, _plan(max_duration=Seconds(10)))

    def execute(store: Store, claim: Claim, planned: PlannedStage) -> dict[str, Any] | None:
        runs.cancel(store, run)
        clock.now += 60
        return None

    drive(str(tmp_path), run, execute, clock)
    assert store.run(run).state == "cancelled"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.num_epochs=2", "only the budget of a run can be changed"),
        ("budget.max_cost=2", "only the budget of a run can be changed"),
        ("budget.max_cost_usd=-2", "is not usd"),
        ("budget.max_cost_usd", "only the budget of a run can be changed"),
    ],
)
def test_nothing_but_a_budget_can_be_changed_on_resuming(override: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        spending.raised(_plan(max_cost_usd=Usd(1)), [override])


def test_a_run_without_a_budget_can_be_given_one() -> None:
    found = spending.raised(_plan(), ["budget.max_duration=2h"]).forecast
    assert found is not None
    assert found.budget is not None
    assert found.budget.budget == Budget(max_duration=Seconds(7200))
