"""When an owner stops starting an engine again; and a real engine that is killed, and one that hangs."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.app import home
from orchestrator.engines import llama_cpp
from orchestrator.engines.base import Source, Tools
from orchestrator.environments.site import Site
from orchestrator.errors import EngineError
from orchestrator.serving import owners
from orchestrator.serving.owners import MAX_STARTS, WINDOW_S, Death, LostError, gives_up
from orchestrator.store.records import Release
from orchestrator.store.store import Store


def test_two_starts_that_fail_for_the_same_reason_are_enough():
    deaths = [Death(0, EngineError("the KV cache does not fit")), Death(9, EngineError("the KV cache does not fit"))]
    assert not gives_up(deaths[:1], now=1)
    assert gives_up(deaths, now=10)


def test_starts_that_fail_for_other_reasons_go_on_within_the_bound():
    deaths = [Death(at, EngineError(f"cause {at}")) for at in range(MAX_STARTS)]
    assert not gives_up(deaths[:-1], now=10)
    assert gives_up(deaths, now=10)


def test_an_engine_that_is_killed_again_and_again_is_started_within_the_bound():
    deaths = [Death(at, LostError("it died (SIGKILL)")) for at in range(MAX_STARTS)]
    assert not gives_up(deaths[:-1], now=10)
    assert gives_up(deaths, now=10)


def test_deaths_of_long_ago_do_not_count():
    deaths = [Death(at * WINDOW_S, LostError("it died (SIGKILL)")) for at in range(MAX_STARTS)]
    assert not gives_up(deaths, now=MAX_STARTS * WINDOW_S)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    from tests import tiny_model

    folder = tmp_path_factory.mktemp("export")
    base, out = tiny_model.build_base(folder / "base"), folder / "gguf"
    out.mkdir()
    tools = Tools(Site(home()), folder / "log", worker=lambda *a, **k: {}, say=print, shared=folder)
    llama_cpp.export(Source(merged=base), "F16", out, tools)
    return out


@pytest.fixture
def owned(exported: Path, tmp_path: Path) -> Iterator[tuple[Store, Release]]:
    """A release whose engine has an owner in a thread, and answers."""
    store = Store(tmp_path)
    (tmp_path / "engines").symlink_to(home() / "engines")
    options = {"n_ctx": 256, "parallel": 1, "threads": 1}
    spec: dict[str, Any] = {"engine": "llama_cpp", "engine_args": options, "model": str(exported)}
    release = store.get_or_create_release("tiny", "d", "r", {**spec, "kind": "cpu", "images": {}, "port": 1})
    store.move_release(release, "starting")
    quick = {"probe_every_s": 0.5, "probe_timeout_s": 1.0}
    owner = threading.Thread(target=owners.own_engine, args=(str(tmp_path), "tiny", 1), kwargs=quick)
    owner.start()
    until(lambda: store.release("tiny", 1).state == "warm")
    yield store, store.release("tiny", 1)
    store.move_release(store.release("tiny", 1), "stopped")
    owner.join()


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def server(release: Release) -> int:
    """Process id of the engine itself; the release knows its guard."""
    return int(Path(f"/proc/{release.pid}/task/{release.pid}/children").read_text().split()[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "reason"), [(signal.SIGKILL, "it died (SIGKILL)"), (signal.SIGSTOP, "it gives no token within 1 s")]
)
def test_an_engine_that_is_killed_or_hangs_is_told_of_and_started_again(owned, sent, reason):
    store, before = owned
    os.kill(server(before), sent)
    until(lambda: store.release("tiny", 1).state == "starting")
    until(lambda: store.release("tiny", 1).state == "warm")
    (lost,) = [event for event in store.events(service="tiny") if event.kind == "release.engine_lost"]
    assert reason in lost.data["error"]["message"]
    assert store.release("tiny", 1).pid != before.pid
