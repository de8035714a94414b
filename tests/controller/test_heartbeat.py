"""When a worker counts as hung; and real ones that hang."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.controller.execute import run_worker
from orchestrator.controller.heartbeat import Heartbeat, Patience, limit_s
from orchestrator.errors import WorkerDiedError

SOON = Patience(medians=10, step_s=0.5, look_s=0.1)
WORKER = """#!{python}
import sys, threading
sys.argv = sys.argv[2:]
from orchestrator.workers.protocol import emit, main, may_be_silent, steps_follow
{work}
main(work)
"""
DEADLOCK = """
def work(request):
    may_be_silent(0.2)
    lock = threading.Lock()
    lock.acquire()
    wait_for_ever(lock)

def wait_for_ever(lock):
    lock.acquire()
"""
STEPS = """
def work(request):
    emit("pid", pid=__import__("os").getpid())
    steps_follow()
    for step in range(1, 10_000_000):
        emit("progress", step=step, steps=10_000_000)
"""


def _after_steps(*times: float) -> tuple[Heartbeat, float]:
    """A worker that is in its loop, and the moment of its last step."""
    heartbeat, now = Heartbeat(Patience(step_s=5), 0.0), 0.0
    heartbeat.heard("silence", {"at_most_s": None}, now)
    for step, seconds in enumerate(times, 1):
        now += seconds
        heartbeat.heard("progress", {"step": step, "steps": 100}, now)
    return heartbeat, now


def test_a_step_may_take_ten_times_the_median_and_five_minutes_in_any_case() -> None:
    assert limit_s([60, 60, 600, 60], Patience()) == 600
    assert limit_s([1, 1, 2, 1], Patience()) == 300
    assert limit_s([60, 60], Patience()) == Patience().start_s, "two steps have no median to go by"


def test_a_worker_hangs_once_a_step_takes_longer() -> None:
    heartbeat, now = _after_steps(1, 1, 1, 1)
    assert heartbeat.hung(now + 10) is None
    found = heartbeat.hung(now + 11)
    assert found == "hung: no step for 11 s (allowed: 10 s), last step 4 of 100"


def test_complaints_within_a_loop_are_no_steps_but_a_checkpoint_that_was_announced_may_last() -> None:
    heartbeat, now = _after_steps(1, 1, 1, 1)
    for second in range(12):
        heartbeat.heard("log", {"message": "still waiting"}, now + second)
    assert heartbeat.hung(now + 12) is not None
    heartbeat, now = _after_steps(1, 1, 1, 1)
    heartbeat.heard("silence", {"at_most_s": 100.0}, now)
    for second in range(0, 101, 5):
        heartbeat.looked(now + second)
    assert heartbeat.hung(now + 100) is None
    heartbeat.heard("silence", {"at_most_s": None}, now + 100)
    assert heartbeat.hung(now + 111) is not None


def test_outside_of_a_loop_any_event_is_a_word_and_the_worker_says_how_long_it_may_be_silent() -> None:
    heartbeat = Heartbeat(Patience(look_s=10), 0.0)
    assert heartbeat.hung(3600) is None
    heartbeat.heard("silence", {"at_most_s": 60}, 1.0)
    heartbeat.heard("log", {"message": "loading"}, 21.0)
    assert heartbeat.hung(81.0) is None
    assert heartbeat.hung(82.0) == "hung: no word for 61 s (allowed: 60 s), before its first step"


def test_that_nobody_looked_is_no_silence_of_the_worker() -> None:
    heartbeat, now = _after_steps(1, 1, 1, 1)
    heartbeat.looked(now + 5000)  # the whole node was stopped
    assert heartbeat.hung(now + 5000) is None


def _worker(folder: Path, work: str) -> list[str]:
    python = folder / "python"
    python.write_text(WORKER.format(python=sys.executable, work=work))
    python.chmod(0o755)
    return [str(python)]


def test_a_worker_that_is_deadlocked_is_killed_and_shows_where_it_was(tmp_path: Path) -> None:
    events: list[tuple[str, dict[str, Any]]] = []
    with pytest.raises(WorkerDiedError, match="the worker merge hung: no word for 0 s"):
        run_worker("merge", {}, tmp_path, lambda kind, **data: events.append((kind, data)),
                   python=_worker(tmp_path, DEADLOCK), patience=SOON)  # fmt: skip
    ((kind, data),) = events
    assert kind == "hung"
    assert "in wait_for_ever" in data["stacks"]


def test_a_worker_that_is_stopped_in_its_loop_is_killed_with_its_group(tmp_path: Path) -> None:
    pids: list[int] = []

    def emit(kind: str, /, **data: Any) -> None:
        pids.extend([data["pid"]] if kind == "pid" else [])
        if kind == "progress" and data["step"] == 5:
            os.kill(pids[0], signal.SIGSTOP)

    with pytest.raises(WorkerDiedError, match=r"the worker merge hung: no step for 1 s .* of 10000000"):
        run_worker("merge", {}, tmp_path, emit, python=_worker(tmp_path, STEPS), patience=SOON)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


@pytest.mark.slow
def test_training_that_is_stopped_in_a_step_is_killed_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from orchestrator.stages.train import Config
    from tests import tiny_model

    base = tiny_model.build_base(tmp_path / "base")
    rows, tokens = tiny_model.write_rows(tmp_path / "rows", 12), tiny_model.write_tokens(base, tmp_path / "tokens", 12)
    config = Config(adapter="lora", micro_batch_size=2, max_steps=30, save_steps=5, sequence_len=96)
    request = {"config": config.model_dump(), "base_model": str(base), "train": str(tokens), "rows": str(rows)}
    pids: list[int] = []
    steps: list[int] = []

    def emit(kind: str, /, **data: Any) -> None:
        pids.extend([data["pid"]] if kind == "pid" else [])
        steps.extend([data["step"]] if kind == "progress" else [])
        if kind == "progress" and data["step"] == 8 and len(pids) == 1:
            os.kill(pids[0], signal.SIGSTOP)

    asked = request | {"directory": str(tmp_path)}
    with pytest.raises(WorkerDiedError, match=r"the worker train hung: no step for \d+ s .* of 30"):
        run_worker("train", asked, tmp_path, emit, patience=Patience(step_s=2, look_s=0.2))
    stopped_at = steps[-1]
    assert run_worker("train", asked, tmp_path, emit)["metrics"]["steps"] == 30
    again = steps[steps.index(stopped_at) + 1]
    assert again in (stopped_at // 5 * 5 + 1, stopped_at // 5 * 5 - 4)
