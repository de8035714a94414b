"""Leases on both databases: two contenders, expiry by the database's clock, and a paused holder's late writes."""

import multiprocessing
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from sqlalchemy import text

from orchestrator.errors import StaleClaimError
from orchestrator.store.records import Lease
from orchestrator.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, clock=lambda: 1e12)  # a machine whose clock is wrong does not matter


def _acquire(store: Store, holder: str) -> Lease:
    lease = store.leases.acquire("controller", holder, for_s=15)
    assert lease is not None
    return lease


def _let_pass(store: Store, seconds: float) -> None:
    """As if the database's clock had moved on."""
    with store.database.begin() as connection:
        connection.execute(text("UPDATE leases SET expires = expires - :seconds"), {"seconds": seconds})


def test_a_lease_has_one_holder_until_it_expires(store: Store) -> None:
    first = _acquire(store, "a")
    assert store.leases.acquire("controller", "b", for_s=15) is None
    assert store.leases.acquire("controller", "a", for_s=15) is None, "two of one name are two"
    _let_pass(store, 14)
    assert store.leases.acquire("controller", "b", for_s=15) is None
    _let_pass(store, 2)
    second = _acquire(store, "b")
    assert (first.fence, second.fence) == (1, 2)


def test_two_names_are_two_leases(store: Store) -> None:
    _acquire(store, "a")
    assert store.leases.acquire("scheduler", "b", for_s=15) is not None


def test_a_renewed_lease_lasts_from_then_on(store: Store) -> None:
    lease = _acquire(store, "a")
    _let_pass(store, 14)
    renewed = store.leases.renew(lease, for_s=15)
    assert renewed.fence == lease.fence
    _let_pass(store, 14)
    assert store.leases.acquire("controller", "b", for_s=15) is None


def test_a_released_lease_is_free_at_once_and_its_fence_still_grows(store: Store) -> None:
    lease = _acquire(store, "a")
    store.leases.release(lease)
    with pytest.raises(StaleClaimError, match="it was released"):
        store.leases.renew(lease, for_s=15)
    assert _acquire(store, "b").fence == 2


def test_a_holder_that_was_away_for_too_long_is_refused_everything(store: Store) -> None:
    old = _acquire(store, "a")
    leader = store.under(old)
    leader.create_run("r1", "demo", {}, [("data", "d")])
    _let_pass(store, 16)
    leader.move_run("r1", "running")  # nobody has taken over, so nothing can contradict it
    new = _acquire(store, "b")
    before = store.events()
    for write in (
        lambda: leader.move_run("r1", "failed"),
        lambda: leader.record("note"),
        lambda: leader.create_run("r2", "demo", {}, []),
        lambda: leader.leases.renew(old, for_s=15),
        lambda: leader.leases.release(old),
    ):
        with pytest.raises(StaleClaimError, match="a does not hold the lease 'controller' any more: b holds it now"):
            write()
    assert store.run("r1").state == "running"
    assert store.events() == before
    store.under(new).move_run("r1", "failed")


def test_changes_of_hands_are_events(store: Store) -> None:
    store.leases.release(_acquire(store, "a"))
    _acquire(store, "b")
    told = [(event.kind, event.data["holder"], event.data["fence"]) for event in store.events()]
    assert told == [("lease.acquired", "a", 1), ("lease.released", "a", 1), ("lease.acquired", "b", 2)]


def _contend(home: Path, ready: Barrier, holder: str, won: "Queue[tuple[str, int]]") -> None:
    store = Store(home)
    ready.wait()
    for _ in range(20):
        lease = store.leases.acquire("controller", holder, for_s=60)
        if lease is not None:
            won.put((holder, lease.fence))
            store.leases.release(lease)


def test_two_contenders_never_hold_it_at_once(store: Store, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, won = context.Barrier(2), context.Queue()
    contenders = [context.Process(target=_contend, args=(tmp_path, ready, name, won)) for name in "ab"]
    for contender in contenders:
        contender.start()
    for contender in contenders:
        contender.join()
    fences = [won.get(timeout=5)[1] for _ in store.events()[::2]]
    assert sorted(fences) == list(range(1, len(fences) + 1)), "every fence was handed out once"
    kinds = [event.kind for event in store.events()]
    assert kinds == ["lease.acquired", "lease.released"] * len(fences), "acquired only after it was released"


def test_of_two_that_ask_at_the_same_moment_one_gets_it(store: Store, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, got = context.Barrier(2), context.Queue()
    contenders = [context.Process(target=_ask_once, args=(tmp_path, ready, name, got)) for name in "ab"]
    for contender in contenders:
        contender.start()
    answers = [got.get(timeout=30) for _ in contenders]
    for contender in contenders:
        contender.join()
    assert sorted(answers) == [False, True]


def _ask_once(home: Path, ready: Barrier, holder: str, got: "Queue[bool]") -> None:
    store = Store(home)
    ready.wait()
    got.put(store.leases.acquire("controller", holder, for_s=60) is not None)
