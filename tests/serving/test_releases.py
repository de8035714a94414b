"""Promotion and rollback on a real store: which release is next, and which engines are kept."""

from pathlib import Path

import pytest

from orchestrator.errors import InputError, NotAllowedError
from orchestrator.serving import releases
from orchestrator.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    for digest in "abc":
        release = store.get_or_create_release("svc", digest, "run", {"port": 1})
        store.move_release(release, "starting")
        store.move_release(release, "warm", url="http://127.0.0.1:1/v1", model=release.name)
    return store


def _promote(store: Store, *numbers: int) -> None:
    for number in numbers:
        releases.promote(store, store.release("svc", number), "gates passed")


def _rollback(store: Store) -> int | None:
    target = releases.rollback_target(store, "svc")
    releases.rollback(store, "svc", target, "p99 doubled")
    return store.service("svc").current


def test_a_rollback_goes_to_the_release_before(store: Store) -> None:
    _promote(store, 1, 2)
    assert _rollback(store) == 1


def test_a_second_rollback_goes_further_back_and_never_forward(store: Store) -> None:
    _promote(store, 1, 2, 3)
    assert [_rollback(store), _rollback(store)] == [2, 1]
    with pytest.raises(NotAllowedError, match="no earlier release"):
        _rollback(store)


def test_a_release_that_was_rolled_back_from_is_not_chosen_again(store: Store) -> None:
    _promote(store, 1, 2)
    _rollback(store)
    _promote(store, 3)
    assert _rollback(store) == 1


def test_a_candidate_that_was_never_promoted_is_not_a_way_back(store: Store) -> None:
    _promote(store, 1, 3)
    assert _rollback(store) == 1


def test_a_rollback_to_a_release_without_an_engine_is_refused_and_changes_nothing(store: Store) -> None:
    _promote(store, 1, 2)
    store.move_release(store.release("svc", 1), "stopped")
    with pytest.raises(NotAllowedError, match="svc@1 is stopped: no engine answers for it"):
        releases.rollback(store, "svc", store.release("svc", 1), None)
    assert store.service("svc").current == 2


def test_a_rollback_to_the_current_release_is_bad_input(store: Store) -> None:
    _promote(store, 1)
    with pytest.raises(InputError, match="svc@1 is serving already"):
        releases.rollback(store, "svc", store.release("svc", 1), None)


def test_who_when_and_why_are_recorded(store: Store) -> None:
    _promote(store, 1, 2)
    _rollback(store)
    event = store.events(service="svc")[-1]
    assert event.kind == "release.rolled_back"
    assert event.data == {"release": 1, "from": 2, "reason": "p99 doubled"}
    assert event.who


def test_only_the_current_release_and_the_way_back_stay_warm(store: Store) -> None:
    _promote(store, 1, 2, 3)
    assert releases.retire(store, "svc") == [1]
    assert [release.state for release in store.releases("svc")] == ["stopped", "warm", "warm"]


def test_after_going_forward_by_hand_a_rollback_goes_to_what_served_before(store: Store) -> None:
    _promote(store, 1, 2, 3, 1)
    assert _rollback(store) == 3
