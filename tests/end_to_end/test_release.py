"""A whole recipe on real Ray, real training and a real engine: released, reused, rolled back, killed, resumed."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.app import home
from orchestrator.engines import llama_cpp
from orchestrator.environments.site import Site
from orchestrator.store.store import Store
from tests.tiny_model import build_base, write_rows

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SERVICE = "tiny"
RECIPE = """\
name: tiny
base_model: {folder}/base
datasets: [{{path: {folder}/train.jsonl, type: chat}}]
test_datasets: [{{path: {folder}/test.jsonl, type: chat}}]
allow_leakage: true
train: {{adapter: lora, lora_r: 4, sequence_len: 128, micro_batch_size: 2, max_steps: 6, save_steps: 2}}
evaluate:
  - {{task: exact_match, max_new_tokens: 8}}
  - {{task: perplexity}}
export: [{{name: gguf, engine: llama_cpp, quantization: F16}}]
parity: {{prompts: 2, positions: 2, max_new_tokens: 8}}
benchmark: {{concurrency: [1, 2], num_requests: 4, warmup: 1, max_tokens: 8}}
gates:
  - {{on: parity.gguf.prompt_tokens_identical, min: 1}}
  - {{on: benchmark.gguf.errors, max: 0}}
serve: {{service: tiny, target: gguf, port: {port}, engine_args: {{n_ctx: 512, parallel: 2, threads: 1}}}}
"""


class Project:
    """A folder with a recipe and a home of its own, and `orch` in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.home.mkdir()
        for environment in llama_cpp.ENVIRONMENTS[:2]:
            Site(home()).ensure(environment)
        (self.home / "engines").symlink_to(home() / "engines")  # installed once
        build_base(folder / "base")
        write_rows(folder / "train.jsonl", 6)
        write_rows(folder / "test.jsonl", 4)
        (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder, port=self.port))

    @property
    def store(self) -> Store:
        return Store(self.home)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "orchestrator.cli.main", *arguments]
        environment = {**os.environ, "ORCH_HOME": str(self.home), "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)  # fmt: skip

    def orch(self, *arguments: str, code: int = 0) -> str:
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=400)
        assert process.returncode == code, output
        return output

    def newest(self) -> str:
        return self.store.runs()[0].id

    def states(self, run: str) -> dict[str, str]:
        return {row.stage: row.state for row in self.store.stage_runs(run)}

    def until(self, happened: Callable[[], Any]) -> Any:
        """Wait for something that another process does."""
        deadline = time.monotonic() + 200
        while not (found := happened()):
            assert time.monotonic() < deadline, "it never happened"
            time.sleep(0.02)
        return found

    def running(self, command: subprocess.Popen[str]) -> str:
        """Id of the run that a command has started."""

        def found() -> str | None:
            assert command.poll() is None, command.communicate()[0]
            return next((run.id for run in self.store.runs() if run.state == "running"), None)

        return str(self.until(found))

    def event(self, run: str, kind: str, stage: str) -> Any:
        """The first event of that kind, once there is one."""
        return self.until(
            lambda: next((e for e in self.store.events(run=run) if (e.kind, e.stage) == (kind, stage)), None)
        )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("project"))
    yield project
    project.orch("down")


def _ask(port: int, model: str) -> tuple[str, str, bool]:
    """(release that answered, text, whether the stream was complete) of one streamed chat."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    messages = [{"role": "user", "content": "Which licence is this?"}]
    body = {"model": model, "messages": messages, "max_tokens": 8, "stream": True}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    text = answer.read().decode()
    return answer.headers.get("x-orch-release", ""), text, answer.status == 200 and "data: [DONE]" in text


class Client(threading.Thread):
    """Streams chats without a pause until it is told to stop."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port, self.stop, self.releases, self.failures = port, threading.Event(), list[str](), list[str]()

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                release, text, complete = _ask(self.port, SERVICE)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                continue
            self.releases.append(release)
            if not complete:
                self.failures.append(text)


def test_a_recipe_becomes_a_served_release(project: Project) -> None:
    output = project.orch("run", "recipe.yaml")
    assert set(project.states(project.newest()).values()) == {"succeeded"}
    assert f"serving   {SERVICE}@1 at http://127.0.0.1:{project.port}/v1" in output
    release, _, complete = _ask(project.port, SERVICE)
    assert (release, complete) == (f"{SERVICE}@1", True)
    report = (project.home / "reports" / f"{project.newest()}.html").read_text()
    assert "gguf" in report


def test_the_same_again_runs_nothing(project: Project) -> None:
    before = project.newest()
    assert "all 9 stages have run before" in project.orch("run", "recipe.yaml")
    assert project.newest() == before


def test_another_concurrency_runs_the_benchmark_and_what_follows(project: Project) -> None:
    project.orch("run", "recipe.yaml", "benchmark.concurrency=[1]")
    states = project.states(project.newest())
    assert {name for name, state in states.items() if state == "succeeded"} == {"benchmark", "promote"}
    assert _ask(project.port, SERVICE)[0] == f"{SERVICE}@1"


def test_a_failed_gate_exits_4_and_the_release_before_still_serves(project: Project) -> None:
    output = project.orch("run", "recipe.yaml", "train.seed=5", "gates.1={on: benchmark.gguf.ttft_p95, max: 0}", code=4)
    assert "gate failed: benchmark.gguf.ttft_p95 = " in output
    assert "outside max 0" in output
    assert _ask(project.port, SERVICE)[0] == f"{SERVICE}@1"
    assert project.store.release(SERVICE, 2).state == "rejected"


def test_a_killed_worker_resumes_from_its_checkpoint_and_a_killed_command_harms_nothing(project: Project) -> None:
    command = project.start("run", "recipe.yaml", "train.max_steps=40", "train.seed=6")
    run = project.running(command)
    worker = project.event(run, "pid", "train").data["pid"]
    folder = next((project.home / "stages").glob(f"train-{_digest(project, run)[:16]}"))
    project.until(lambda: list(folder.glob("checkpoints/checkpoint-*/trainer_state.json")))
    os.kill(command.pid, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    command.wait()
    project.until(lambda: project.store.run(run).state in ("succeeded", "failed"))
    assert project.store.run(run).state == "succeeded", project.store.run(run).error
    rows = {row.stage: row for row in project.store.stage_runs(run)}
    assert rows["train"].attempts == 2
    pids = [e.id for e in project.store.events(run=run) if e.kind == "pid" and e.stage == "train"]
    steps = [
        e.data["step"]
        for e in project.store.events(run=run, after=pids[1])
        if (e.kind, e.stage) == ("progress", "train")
    ]
    assert min(steps) > 2, "the second attempt began at the checkpoint"
    assert _ask(project.port, SERVICE)[0] == f"{SERVICE}@3"


def _digest(project: Project, run: str) -> str:
    return next(row.digest for row in project.store.stage_runs(run) if row.stage == "train")


def test_a_rollback_under_load_fails_no_request(project: Project) -> None:
    clients = [Client(project.port) for _ in range(2)]
    for client in clients:
        client.start()
    project.until(lambda: all(client.releases for client in clients))
    output = project.orch("rollback", SERVICE, "--reason", "answers got worse")
    seen = [len(client.releases) for client in clients]
    project.until(lambda: all(len(c.releases) > n + 3 for c, n in zip(clients, seen, strict=True)))
    for client in clients:
        client.stop.set()
        client.join()
    assert [client.failures for client in clients] == [[], []]
    assert {client.releases[-1] for client in clients} == {f"{SERVICE}@1"}
    assert f"{SERVICE}@3 -> {SERVICE}@1" in output
    listed = project.orch("releases", SERVICE)
    assert "answers got worse" in listed
    assert "rolled back from" in listed


def test_a_rerun_does_not_undo_a_rollback(project: Project) -> None:
    output = project.orch("run", "recipe.yaml", "train.max_steps=40", "train.seed=6", code=4)
    assert f"{SERVICE}@3 was rolled back and is not promoted again by a rerun" in output


def test_a_second_rollback_has_nowhere_to_go(project: Project) -> None:
    assert f"{SERVICE} has no earlier release to go back to" in project.orch("rollback", SERVICE, code=3)


def test_a_killed_engine_comes_back(project: Project) -> None:
    release = project.store.release(SERVICE, 1)
    assert release.pid is not None
    os.kill(release.pid, signal.SIGKILL)
    project.until(lambda: project.store.release(SERVICE, 1).pid not in (release.pid, None))
    assert _ask(project.port, SERVICE)[2]


def test_a_cancelled_run_stops_and_resumes(project: Project) -> None:
    process = project.start("run", "recipe.yaml", "train.max_steps=60", "train.seed=7")
    run = project.running(process)
    worker = project.event(run, "pid", "train").data["pid"]
    project.event(run, "progress", "train")
    project.orch("cancel", run)
    process.communicate(timeout=120)
    assert project.store.run(run).state == "cancelled"
    project.until(lambda: not _alive(worker))
    project.orch("resume", run)
    assert project.store.run(run).state == "succeeded"
    assert project.states(run)["data"] in ("succeeded", "reused")


def _alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text()
    return False


def test_down_leaves_no_process_and_up_serves_again(project: Project) -> None:
    engine = project.store.releases(SERVICE)[-1].pid
    project.orch("down")
    assert engine is None or not _alive(engine)
    with pytest.raises(OSError, match="refused"):
        _ask(project.port, SERVICE)
    assert f"http://127.0.0.1:{project.port}/v1" in project.orch("serve", "up", SERVICE)
    assert _ask(project.port, SERVICE)[2]


def test_a_disk_that_fills_up_while_training_is_one_clear_error_and_the_run_resumes(project: Project) -> None:
    mount = project.folder / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=260m", "tmpfs", mount], check=False).returncode:
        pytest.skip("mounting a tmpfs needs root on Linux")
    project.orch("down")  # its gateway has the port
    home, project.home = project.home, mount / "home"
    try:
        command = project.start("run", "recipe.yaml", "train.max_steps=300", "train.save_steps=100")
        run = project.running(command)
        project.event(run, "pid", "train")
        filler = mount / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(mount).free - 300_000))
        output, _ = command.communicate(timeout=200)
        assert command.returncode == 2, output
        assert "no space left on the device while writing" in output
        assert project.states(run)["train"] == "failed"
        filler.unlink()
        project.orch("resume", run)
        assert project.store.run(run).state == "succeeded"
        project.orch("down")
    finally:
        project.home = home
        subprocess.run(["umount", "-l", mount], check=True)
