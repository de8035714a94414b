"""What an earlier run on the same hardware needed stands in for a prediction that cannot be made."""

from pathlib import Path

import pytest

from orchestrator.clusters.cluster import Cluster
from orchestrator.controller import runs
from orchestrator.controller.history import History
from orchestrator.planner.estimate import Estimate, Unknown
from orchestrator.planner.forecast import Forecast
from orchestrator.planner.plan import Plan, PlannedStage, Resources
from orchestrator.store.store import Store

UNKNOWN = Unknown(reason="unknown")
TOKENS = Estimate(unit="tokens", value=20_000, low=20_000, high=20_000)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """With one run on the CPU of cluster `x`: 110 s of training, of which 10 s before its first step; 30 s of data."""
    clock = Clock()
    store = Store(tmp_path, clock=clock)
    plan = Plan(
        recipe="demo",
        path="demo.yaml",
        directory="/",
        cluster=Cluster(name="x"),
        accelerator=None,
        stages=[PlannedStage(name=n, config={}, digest=n, resources=Resources()) for n in ("data", "train")],
        gates=[],
        service=None,
        obstacles=[],
        forecast=Forecast(time=UNKNOWN, cost=UNKNOWN),
    )
    run = runs.create(store, plan)
    store.move_run(run, "running")
    peaks = {"peak_memory": {"train": {"rss": 2**30}}}
    for stage, seconds, metrics in (("data", 30, {}), ("train", 110, {"tokens_per_s": 100.0, "seconds": 100.0})):
        claim = store.claim_stage(run, stage)
        clock.now += seconds
        store.end_stage(claim, "succeeded", outputs={"artifacts": {}, "metrics": metrics, "report": peaks})
    return store


def test_training_takes_as_long_as_its_tokens_at_the_speed_of_the_run_before(store: Store) -> None:
    found = History(store, "demo", "x", None).time("train", TOKENS)
    assert found is not None
    assert found.value == 10 + 20_000 / 100
    assert found.low < found.value < found.high
    assert found.source.startswith("as in run demo-")


def test_another_stage_takes_as_long_as_it_took(store: Store) -> None:
    found = History(store, "demo", "x", None).time("data", TOKENS)
    assert found is not None
    assert found.value == 30


def test_the_main_memory_of_a_worker_is_that_of_the_run_before(store: Store) -> None:
    found = History(store, "demo", "x", None).memory("train")
    assert found is not None
    assert (found.value, found.unit) == (2**30, "bytes")
    assert History(store, "demo", "x", None).memory("data") is None


@pytest.mark.parametrize("other", [("other", "x", None), ("demo", "y", None), ("demo", "x", "H100:1")])
def test_another_recipe_cluster_or_accelerator_says_nothing(store: Store, other: tuple[str, str, str | None]) -> None:
    assert History(store, *other).time("train", TOKENS) is None
