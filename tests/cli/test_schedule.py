"""`orch schedule` as a user runs it; the scheduler is the real, detached process, and `orch down` ends it."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from orchestrator.controller import schedule
from orchestrator.store.store import Store
from tests.cli.conftest import ROOT, Orch
from tests.cli.test_commands import _imports
from tests.test_webhook import receiving

T = TypeVar("T")
HEAVY = {"torch", "ray", "numpy", "matplotlib", "aiohttp", "httpx", "jinja2"}
URL = "http://127.0.0.1:9"


@pytest.fixture
def scheduling(orch: Orch) -> Iterator[Orch]:
    """`orch` that ends the scheduler that it may have started."""
    yield orch
    assert orch("down").returncode == 0


def _until(found: Callable[[], T | None]) -> T:
    """What `found` gives once it gives something: another process is on its way there."""
    deadline = time.monotonic() + 30
    while (result := found()) is None:
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return result


def _listed(orch: Orch) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(orch("schedule", "list", "--json").stdout)
    return found


def test_help_names_every_command_and_is_light(orch: Orch, tmp_path: Path) -> None:
    shown = orch("schedule", "--help").stdout
    for command in ("add", "list", "pause", "resume", "rm", "run-now", "history", "serve"):
        assert f" {command} " in shown
    assert not _imports("schedule", "--help", home=tmp_path) & {"sqlalchemy", "yaml", "croniter", *HEAVY}
    assert not _imports("schedule", "list", home=tmp_path) & HEAVY


def test_an_empty_list_says_where_to_start(orch: Orch) -> None:
    assert "orch schedule add RECIPE" in orch("schedule", "list").stdout
    assert _listed(orch) == {"scheduler": None, "schedules": []}
    assert "nothing was due yet" in orch("schedule", "history").stdout


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((URL, "--cron", "0 3 * *"), "it has 4 fields, not 5"),
        ((URL, "--cron", "0 25 * * *"), "the hour '25' is not within 0-23"),
        ((URL, "--cron", "@daily", "--timezone", "Europe/Berln"), "did you mean 'Europe/Berlin'?"),
        ((URL, "--cron", "@daily", "--webhook", "hooks.example.com/T0KEN"), "must begin with http:// or https://"),
        ((URL, "--cron", "@daily", "--name", "a b"), "cannot be the name of a schedule"),
        ((URL, "--cron", "@daily", "--command", "run"), "can only be benchmarked"),
        (("recipes/none.yaml", "--cron", "@daily"), "none.yaml"),
    ],
)
def test_bad_input_is_one_error_and_starts_nothing(
    orch: Orch, tmp_path: Path, arguments: tuple[str, ...], problem: str
) -> None:
    done = orch("schedule", "add", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert problem in done.stderr
    assert "T0KEN" not in done.stderr + done.stdout
    assert Store(tmp_path / "home").schedules.all() == []
    assert schedule.running(tmp_path / "home") is None


def test_a_misspelt_option_of_the_command_is_refused_now_and_not_tonight(orch: Orch) -> None:
    done = orch(
        "schedule", "add", "recipes/quickstart.yaml", "--cron", "@daily", "--command", "run", "--", "--froce", "x"
    )
    assert done.returncode == 2
    assert "--froce" in done.stderr
    assert "orch run" in done.stderr
    assert _listed(orch) == {"scheduler": None, "schedules": []}


def test_a_key_is_not_kept_in_a_schedule(orch: Orch) -> None:
    for key in (("--api-key", "sk-mine"), ("--api-key=sk-mine",), ("--header", "api-key: sk-mine")):
        done = orch("schedule", "add", "http://127.0.0.1:9", "--cron", "0 3 * * *", "--", *key)
        assert done.returncode == 2
        assert "OPENAI_API_KEY" in done.stderr
    assert "nothing is scheduled" in orch("schedule", "list").stdout


def test_a_recipe_without_a_benchmark_is_refused(orch: Orch, tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(
        "name: only\nbase_model: ./m\ndatasets: [{path: a.jsonl, type: chat}]\ntrain: {adapter: lora}\n"
    )
    done = orch("schedule", "add", "train.yaml", "--cron", "@daily", cwd=tmp_path)
    assert done.returncode == 2
    assert "train.yaml has no `benchmark` section" in done.stderr


@pytest.mark.parametrize("command", ["pause", "resume", "rm", "run-now", "history"])
def test_an_unknown_name_is_bad_input(orch: Orch, command: str) -> None:
    done = orch("schedule", command, "nothing")
    assert done.returncode == 2
    assert "no schedule 'nothing'" in done.stderr


def test_a_schedule_from_its_beginning_to_its_end(scheduling: Orch, tmp_path: Path) -> None:
    orch = scheduling
    with receiving(200) as receiver:
        added = orch(
            *("schedule", "add", "recipes/quickstart.yaml", "--cron", "0 3 * * *", "--timezone", "Europe/Berlin"),
            *("--webhook", receiver.url, "--missed", "run-once", "--command", "run"),
            *("--", "train.nothing=1"),
        )
        assert added.returncode == 0, added.stderr
        assert "03:00 (Europe/Berlin)" in added.stdout
        assert "the scheduler runs in the background now" in added.stdout
        assert orch("schedule", "add", "recipes/quickstart.yaml", "--cron", "@daily").returncode == 2

        listed = _listed(orch)
        assert listed["scheduler"] is not None
        [kept] = listed["schedules"]
        assert kept["command"] == ["run", "recipes/quickstart.yaml", "train.nothing=1"]
        assert (kept["missed"], kept["overlap"], kept["last"]) == ("run_once", "skip", None)
        assert kept["webhook"].endswith("/…")

        assert orch("schedule", "pause", "quickstart").returncode == 0
        assert "paused" in orch("schedule", "list").stdout
        assert orch("schedule", "run-now", "quickstart").returncode == 0

        def ended() -> dict[str, Any] | None:
            [found] = json.loads(orch("schedule", "history", "quickstart", "--json").stdout)
            return found if found["ended"] else None

        run = _until(ended)
        assert (run["state"], run["exit_code"]) == ("failed", 2)
        assert "train.nothing" in Path(run["log"]).read_text()
        assert run["log"].startswith(str(tmp_path / "home" / "schedules" / "quickstart"))
    assert [body["event"] for _, _, body in receiver.requests] == ["schedule.failed"]

    shown = orch("schedule", "history").stdout
    assert "exit code 2" in shown
    assert run["log"] in shown
    assert "quickstart is removed" in orch("schedule", "rm", "quickstart").stdout
    assert "exit code 2" in orch("schedule", "history", "quickstart").stdout, "its history stays"
    assert "the scheduler is stopped" in orch("down").stdout
    assert _listed(orch) == {"scheduler": None, "schedules": []}
    everything = (tmp_path / "home" / "schedules" / "scheduler.log").read_text() + shown + added.stdout
    assert "T0KEN" not in everything


def test_a_second_scheduler_is_refused(scheduling: Orch) -> None:
    assert scheduling("schedule", "serve", "-d").returncode == 0
    first = _listed(scheduling)["scheduler"]
    second = scheduling("schedule", "serve")
    assert second.returncode == 3
    assert "runs already" in second.stderr
    assert f"process {first};" in scheduling("schedule", "serve", "-d").stdout


def test_a_scheduler_that_is_killed_takes_its_command_along_and_its_successor_says_so(
    scheduling: Orch, tmp_path: Path
) -> None:
    def reading() -> int | None:
        """The writing end of the recipe, which is a pipe, while somebody reads it."""
        with contextlib.suppress(OSError):
            return os.open(tmp_path / "slow.yaml", os.O_WRONLY | os.O_NONBLOCK)
        return None

    os.mkfifo(tmp_path / "slow.yaml")
    store, command = Store(tmp_path / "home"), ["plan", "slow.yaml"]
    schedule.add(store, "slow", command, cron="@yearly", timezone="UTC", cwd=tmp_path, now=time.time())
    assert scheduling("schedule", "run-now", "slow").returncode == 0
    writer = _until(reading)
    killed = _listed(scheduling)["scheduler"]
    os.kill(killed, signal.SIGKILL)
    os.close(_until(lambda: None if _has_reader(writer) else writer))

    assert scheduling("schedule", "serve", "-d").returncode == 0
    assert _listed(scheduling)["scheduler"] != killed
    run = _until(lambda: next((run for run in store.schedules.history() if run.ended), None))
    assert (run.state, run.reason) == ("failed", "interrupted: the scheduler died while it ran")
    assert reading() is None, "it is not run again"


def _has_reader(writer: int) -> bool:
    poll = select.poll()
    poll.register(writer, 0)
    return not any(event & select.POLLERR for _, event in poll.poll(0))


def test_the_foreground_scheduler_ends_on_ctrl_c(orch: Orch, tmp_path: Path) -> None:
    environment = {**os.environ, "ORCH_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "orchestrator.cli.main", "schedule", "serve"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "scheduler of" in process.stdout.readline()
        _until(lambda: schedule.running(tmp_path / "home"))
        assert _listed(orch)["scheduler"] == process.pid
        process.send_signal(signal.SIGINT)
        assert "the scheduler has ended" in process.stdout.read()
    assert process.returncode == 0
    assert _listed(orch)["scheduler"] is None
