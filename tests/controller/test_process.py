"""The controller as a process: one for a store, started when it is needed, replaced when it hangs."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.controller import process
from orchestrator.controller.leader import LEASE_S
from orchestrator.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    yield store
    process.stop(store)


def _until(happened: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := happened()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)
    return found


def _controller(store: Store, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "orchestrator.cli.main", "controller", *options]
    environment = {**os.environ, "ORCH_HOME": str(store.home)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_one_is_started_once_and_a_second_one_is_refused(store: Store) -> None:
    process.ensure(store)
    holder = process.running(store)
    assert holder is not None
    process.ensure(store)
    assert process.running(store) == holder
    second = _controller(store)
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 3
    assert f"runs already: process {holder.split('|')[1]} on" in output
    assert "--standby waits until that one is gone" in output
    assert process.stop(store)
    assert process.running(store) is None
    assert not process.stop(store)


def test_one_that_was_killed_is_replaced_once_its_lease_has_expired(store: Store) -> None:
    process.ensure(store)
    first = process.running(store)
    assert first is not None
    os.kill(int(first.split("|")[1]), signal.SIGKILL)
    process.ensure(store)  # still believes in it, and whoever follows a run asks again
    second = _controller(store, "--standby")
    _until(lambda: process.running(store) not in (first, None))
    second.terminate()
    assert second.wait(timeout=30) == 0


@pytest.mark.slow
def test_one_that_hangs_is_replaced_and_finds_out_when_it_wakes_up(store: Store) -> None:
    first = _controller(store)
    _until(lambda: process.running(store))
    second = _controller(store, "--standby")
    told = list[str]()
    threading.Thread(target=lambda: told.extend(first.stdout or ()), daemon=True).start()
    os.kill(first.pid, signal.SIGSTOP)
    _until(lambda: str(second.pid) in (process.running(store) or "").split("|"), 4 * LEASE_S)
    os.kill(first.pid, signal.SIGCONT)
    _until(lambda: any("does not hold the lease 'controller' any more" in line for line in told))
    assert str(second.pid) in str(process.running(store)).split("|")
    for each in (first, second):
        each.terminate()
        each.wait(timeout=30)
