"""An engine that dies, hangs or fails under a server that goes on answering; and one that is only busy."""

import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator import processes
from orchestrator.engines import llama_cpp
from orchestrator.engines.base import Launch
from orchestrator.engines.running import Running
from orchestrator.engines.watch import Watch
from orchestrator.environments.environment import OWN
from tests.engines.test_client import ANSWER, engine

TIMEOUT_S = 0.3


@pytest.fixture
def living(tmp_path: Path) -> Iterator[processes.GuardedProcess]:
    started = processes.start([sys.executable, "-c", "import signal; signal.pause()"], log=tmp_path / "log")
    yield started
    started.stop()


def watching(url: str, process: processes.GuardedProcess, now: Callable[[], float], **changed: Any) -> Watch:
    launch = Launch(Path("m"), "tiny@1", "127.0.0.1", int(url.rsplit(":", 1)[1].split("/")[0]), Path("."), OWN)
    module = SimpleNamespace(**{**vars(llama_cpp), **changed})
    return Watch(Running(module, launch, process), every_s=10, timeout_s=TIMEOUT_S, clock=now)


def due(url: str, process: processes.GuardedProcess, **changed: Any) -> Watch:
    """Whose probe is due as soon as it is asked."""
    moments = itertools.chain([0.0], itertools.repeat(99.0))
    return watching(url, process, lambda: next(moments), **changed)


def told(watch: Watch) -> str:
    """The trouble, once the probe that is under way has ended."""
    deadline = time.monotonic() + 20
    while (trouble := watch.trouble()) is None:
        assert time.monotonic() < deadline, "nothing was found"
        time.sleep(0.01)
    return trouble


def test_nothing_is_asked_before_it_is_due_and_an_answer_is_no_trouble(living):
    asked, now = [], [0.0]
    with engine(lambda path: (asked.append(path), (200, ANSWER))[1]) as url:
        watch = watching(url, living, lambda: now[0])
        assert watch.trouble() is None
        assert asked == []
        now[0] = 11
        while not any(path.endswith("completions") for path in asked):
            assert watch.trouble() is None
            time.sleep(0.01)
        watch.close()


def test_a_process_that_died_is_named_with_its_signal(living):
    children = Path(f"/proc/{living.pid}/task/{living.pid}/children")
    while not children.read_text():
        time.sleep(0.01)
    os.kill(int(children.read_text()), signal.SIGKILL)
    living.wait()
    assert told(watching("http://127.0.0.1:9/v1", living, lambda: 0.0)) == "it died (SIGKILL)"


def test_a_server_that_answers_health_and_no_token_is_trouble(living):
    def reply(path: str) -> tuple[int, Any]:
        return (500, {"error": "EngineDeadError"}) if path.endswith("completions") else (200, {"status": "ok"})

    with engine(reply) as url:
        assert "EngineDeadError" in told(due(url, living, parse_metrics=lambda text: METRICLESS))


METRICLESS = SimpleNamespace(generated_tokens_total=None, steps_total=None)


def hanging(released: threading.Event, counts: Iterator[int]) -> Callable[[str], tuple[int, Any]]:
    """A server that gives no token until it is released, and counts tokens as the test says."""

    def reply(path: str) -> tuple[int, Any]:
        if path.endswith("completions"):
            released.wait(20)
        return 200, ({"generated": next(counts)} if path.endswith("metrics") else ANSWER)

    return reply


def counted(text: str) -> Any:
    return SimpleNamespace(steps_total=None, generated_tokens_total=float(text.rpartition(":")[2].strip(" }\n")))


def test_a_server_that_hangs_with_its_counters_still_is_trouble(living):
    released = threading.Event()
    with engine(hanging(released, iter([5] * 9))) as url:
        assert told(due(url, living, parse_metrics=counted)).startswith("it gives no token within")
        released.set()


def test_a_server_that_is_busy_with_other_requests_is_no_trouble(living):
    released, asked = threading.Event(), []
    counts = iter(range(99))

    def reply(path: str) -> tuple[int, Any]:
        asked.append(path)
        return hanging(released, counts)(path)

    with engine(reply) as url:
        watch = due(url, living, parse_metrics=counted)
        deadline = time.monotonic() + 20
        while sum(path.endswith("metrics") for path in asked) < 2:
            assert watch.trouble() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert watch.trouble() is None
        released.set()
        watch.close()


class Computing:
    """A process that has used as much CPU as the test says, each time it is asked."""

    def __init__(self, process: processes.GuardedProcess, *seconds: float) -> None:
        self._process, self.asked, self._seconds = process, 0, seconds

    def cpu_seconds(self) -> float:
        self.asked += 1
        return self._seconds[self.asked - 1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._process, name)


def without_metrics(released: threading.Event) -> Callable[[str], tuple[int, Any]]:
    def reply(path: str) -> tuple[int, Any]:
        return (404, {}) if path.endswith("metrics") else hanging(released, iter(()))(path)

    return reply


def test_a_server_without_metrics_is_busy_while_it_uses_the_cpu(living):
    released, computing = threading.Event(), Computing(living, 1.0, 2.0)
    with engine(without_metrics(released)) as url:
        watch = due(url, computing)  # type: ignore[arg-type]
        deadline = time.monotonic() + 20
        while computing.asked < 2:
            assert watch.trouble() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert watch.trouble() is None
        released.set()
        watch.close()


def test_a_server_without_metrics_that_only_takes_the_probe_hangs(living):
    released = threading.Event()
    with engine(without_metrics(released)) as url:
        assert told(due(url, Computing(living, 1.0, 1.001))).startswith("it gives no token within")  # type: ignore[arg-type]
        released.set()


def test_a_log_that_tells_of_a_failure_makes_it_ask_at_once(living):
    asked: list[str] = []

    def reply(path: str) -> tuple[int, Any]:
        asked.append(path)
        return 500, {"error": "no kernel image is available"}

    with engine(reply) as url:
        watch = watching(
            url, living, lambda: 0.0, diagnose=lambda log: "a kernel is missing" if "CUDA error" in log else None
        )
        assert watch.trouble() is None
        assert asked == []
        living.log.write_text("CUDA error: no kernel image\n")
        assert "no kernel image" in told(watch)
