"""Places that owners hold: written with the run's state, under a fence, and refused to whoever has lost them."""

from pathlib import Path

import pytest

from orchestrator.errors import InfrastructureError, OrchError, StaleClaimError
from orchestrator.store.records import Allocation, Bundle, Place
from orchestrator.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path, clock=iter(range(1000)).__next__)
    store.create_run("r", "demo", {}, [])
    return store


def _place(store: Store, owner: str = "r", *, is_run: bool = True) -> Allocation:
    places = [Place(node="n1", gpus=(0, 1)), Place(node="n2", gpus=(4, 5))]
    bundle = Bundle(num_cpus=4, num_gpus=2)
    return store.allocations.place(owner, cluster="c", kind="H100", bundle=bundle, placements=places, is_run=is_run)


def _kinds(store: Store) -> list[str]:
    return [event.kind for event in store.events(run="r")]


def test_placing_takes_a_run_out_of_the_queue_in_one_transaction(store: Store) -> None:
    store.note_waits({"r": {"reason": "waits", "expected": 5.0}})
    held = _place(store)
    assert (held.name, held.state, held.begun) == ("r.1", "held", False)
    assert store.allocations.live() == [held] == store.allocations.of("r")
    assert (store.run("r").state, store.run("r").wait) == ("running", None)
    assert _kinds(store) == ["run.queued", "allocation.placed", "run.running"]
    with pytest.raises(OrchError, match="r holds places already"):
        _place(store)


def test_a_run_that_does_not_wait_is_not_placed(store: Store) -> None:
    store.move_run("r", "cancelled")
    with pytest.raises(OrchError, match="cannot go from 'cancelled' to 'running'"):
        _place(store)
    assert store.allocations.of("r") == []


def test_a_sign_of_life_hears_what_is_wanted(store: Store) -> None:
    held = _place(store)
    assert store.allocations.renew(held).begun
    store.allocations.ask_to_yield(held, 60.0, "a run of a higher class waits")
    told = store.allocations.renew(held)
    assert (told.state, told.reason) == ("yielding", "a run of a higher class waits")
    assert told.until == pytest.approx(store.allocations.now() + 60, abs=5)
    store.allocations.ask_to_yield(held, 999.0, "again")
    assert store.allocations.renew(held).until == told.until


def test_the_end_of_an_allocation_is_the_end_of_its_holder(store: Store) -> None:
    held = _place(store)
    store.allocations.end(held, "silent", "it gave no sign of life", run="queued")
    assert (store.run("r").state, store.allocations.live()) == ("queued", [])
    for late in (
        lambda: store.allocations.renew(held),
        lambda: store.allocations.end(held, "finished", "done", run="succeeded"),
        lambda: store.holding(held).record("log", run="r", message="late"),
    ):
        with pytest.raises(StaleClaimError, match=r"r\.1 does not hold its places any more: it gave no sign"):
            late()
    assert _place(store).name == "r.2"
    assert [found.cause for found in store.allocations.of("r")] == ["silent", None]


def test_history_is_that_of_those_who_wait_now(store: Store) -> None:
    store.allocations.end(_place(store), "node", "gone", run="queued")
    engine = _place(store, "engine-svc@2", is_run=False)
    store.allocations.end(engine, "lost", "died")
    assert {owner: [f.cause for f in found] for owner, found in store.allocations.ended(["engine-svc@2"]).items()} == {
        "r": ["node"],
        "engine-svc@2": ["lost"],
    }
    store.allocations.end(_place(store), "finished", "done", run="failed", error=InfrastructureError("no"))
    assert list(store.allocations.ended()) == []
    assert store.run("r").error == {"type": "InfrastructureError", "message": "no", "next_step": None}
