"""Hearing of a change: a switch of another connection is seen, on PostgreSQL also after the server was restarted."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import InfrastructureError
from orchestrator.store.store import Store
from tests.postgresql import Server

ONLY_POSTGRESQL = pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
_HEARD_S = 10.0


def _heard(changed: Callable[[], bool]) -> bool:
    """Whether it says so soon: SQLite at once, PostgreSQL when the notification has arrived."""
    deadline = time.monotonic() + _HEARD_S
    while not changed():
        if time.monotonic() > deadline:
            return False
    return True


def test_a_switch_is_seen_by_a_watcher_of_another_connection(tmp_path: Path) -> None:
    store = Store(tmp_path)
    release = store.get_or_create_release("svc", "aa", "r1", {})
    store.move_release(release, "starting")
    store.move_release(release, "warm", url="http://127.0.0.1:1/v1")
    changed = Store(tmp_path).watch()
    assert changed(), "what was there before has not been seen either"
    assert not changed()
    store.switch("svc", 1, expected=None, kind="release.promoted", reason=None)
    assert _heard(changed)
    assert store.routes()["services"] == {"svc": {"current": 1}}


def test_every_change_is_seen(tmp_path: Path) -> None:
    store, changed = Store(tmp_path), Store(tmp_path).watch()
    changed()
    for number in range(20):
        store.record("tick", number=number)
        assert _heard(changed)


def test_asking_is_cheap_enough_for_every_20_ms(tmp_path: Path) -> None:
    changed = Store(tmp_path).watch()
    begun = time.process_time()
    for _ in range(1000):
        changed()
    assert time.process_time() - begun < 0.5, "a fortieth of a core at most"


@ONLY_POSTGRESQL
def test_a_restart_of_the_server_is_waited_for_and_counts_as_a_change(tmp_path: Path, postgresql: Server) -> None:
    store = Store(tmp_path)
    store.record("before")
    changed = store.watch()
    changed()
    postgresql.stop()
    restart = threading.Thread(target=postgresql.start)
    restart.start()
    store.record("after")
    restart.join()
    assert _heard(changed), "something may have happened meanwhile"
    store.record("later")
    assert _heard(changed)
    assert [event.kind for event in store.events()] == ["before", "after", "later"]


@ONLY_POSTGRESQL
def test_a_server_that_is_gone_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_STORE", f"postgresql://ann:secret@/orch?host={tmp_path}")
    with pytest.raises(InfrastructureError, match=r"store postgresql://ann:\*\*\*@/orch.* does not answer") as found:
        Store(tmp_path)
    assert "secret" not in str(found.value)
