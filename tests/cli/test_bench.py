"""`orch bench` as a user types it."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator.bench.result import Result
from orchestrator.store.store import Store
from orchestrator.testing import Status, answer, serving
from tests.bench.fake_result import fake_result
from tests.cli.conftest import ROOT, Orch
from tests.cli.test_commands import HEAVY, _imports


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def kept(home: Path) -> str:
    """Id of a stored benchmark."""
    home.mkdir()
    result = fake_result()
    Store(home).add_benchmark(result.model_dump(mode="json"))
    return result.id


@pytest.mark.parametrize("arguments", [["bench", "--help"], ["bench", "run", "--help"], ["bench", "compare", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    heavy = {*HEAVY, "numpy", "httpx", "plotext", "sqlalchemy", "yaml"}
    assert not _imports(*arguments, home=tmp_path) & heavy


def test_an_empty_list_says_where_to_start(orch: Orch) -> None:
    assert "orch bench run http://" in orch("bench", "list").stdout
    assert json.loads(orch("bench", "list", "--json").stdout) == []


def test_the_list_has_what_was_kept(orch: Orch, kept: str) -> None:
    listed = orch("bench", "list").stdout
    assert kept in listed
    assert "32 (2 failed)" in listed


def test_a_result_is_shown_with_its_cells_its_curve_and_what_to_doubt(orch: Orch, kept: str) -> None:
    shown = orch("bench", "show", kept).stdout
    assert "vllm-fp8  64 streams" in shown
    assert "llama-q4 at 256 streams failed: the engine died with code 139: <segfault" in shown
    assert "TTFT p95, ms (logarithmic) over output tokens/s" in shown
    assert "client-limited: add --workers" in shown
    assert "\x1b" not in shown, "no colours in a pipe"


def test_a_result_as_json_is_the_result(orch: Orch, kept: str) -> None:
    assert json.loads(orch("bench", "show", "latest", "--json").stdout) == fake_result().model_dump(mode="json")


def test_a_result_that_does_not_exist(orch: Orch, kept: str) -> None:
    done = orch("bench", "show", "nothing")
    assert done.returncode == 2
    assert kept in done.stderr, "what there is is named"


def test_the_report_is_written_to_the_benchmarks_folder_or_where_it_is_wanted(
    orch: Orch, kept: str, home: Path, tmp_path: Path
) -> None:
    path = Path(orch("bench", "report", kept).stdout.strip())
    assert path == home / "benchmarks" / kept / "report.html"
    assert "<!doctype html>" in path.read_text()
    assert orch("bench", "report", kept, "--html", str(tmp_path / "there" / "a.html")).returncode == 0
    assert (tmp_path / "there" / "a.html").exists()


def test_a_baseline_is_set_listed_and_found_by_its_name(orch: Orch, kept: str) -> None:
    assert "no baseline yet" in orch("bench", "baseline", "list").stdout
    assert kept in orch("bench", "baseline", "set", "chat", "latest").stdout
    assert orch("bench", "baseline", "list").stdout.startswith(f"chat  {kept}")
    assert "baseline of chat" in orch("bench", "list").stdout
    assert json.loads(orch("bench", "show", "baseline:chat", "--json").stdout)["id"] == kept
    unknown = orch("bench", "show", "baseline:other")
    assert unknown.returncode == 2
    assert "no baseline 'other' (known: chat)" in unknown.stderr


def test_a_result_file_of_ours_is_read_where_it_lies_and_imported(orch: Orch, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text(fake_result(targets=("only",)).model_dump_json())
    assert "only (vllm 0.32.0)" in orch("bench", "show", str(file)).stdout
    assert "16 cells of chat-h100" in orch("bench", "import", str(file)).stdout
    assert "only" in orch("bench", "list").stdout


QUICK = ("-c", "2", "--requests", "40", "--warmup", "0", "--output-tokens", "4")


def slow(body: dict[str, Any]) -> AsyncIterator[bytes]:
    """An answer that takes longer to begin than any other."""

    async def script() -> AsyncIterator[bytes]:
        await asyncio.sleep(0.05)
        async for piece in answer("a", "b", "c", "d")(body):
            yield piece

    return script()


@pytest.fixture
def url() -> Iterator[str]:
    with serving(answer("a", "b", "c", "d")) as engine:
        yield engine.url


def test_a_server_is_measured_without_a_recipe_and_the_result_is_kept(orch: Orch, url: str, home: Path) -> None:
    done = orch("bench", "run", url, *QUICK, "--slo", "ttft=5s", "--usd-per-hour", "3.6", "--name", "mine")
    assert done.returncode == 0, done.stderr
    assert re.search(r"2 streams: (\d+) of \1 requests", done.stdout)
    kept = Store(home).benchmark("latest")
    assert (kept["name"], len(kept["cells"])) == ("mine", 1)
    summary = kept["cells"][0]["summary"]
    assert 30 < summary["succeeded"] <= 40, "those of the steady window"
    assert (summary["goodput"], summary["completion_tokens"]) == (1.0, 4 * summary["succeeded"])
    assert summary["usd_per_million_tokens"] == pytest.approx(1000 / summary["output_tokens_per_s"])
    folder = home / "benchmarks" / kept["id"]
    assert str(folder / "report.html") in done.stdout
    assert {"result.json", "report.html"} <= {path.name for path in folder.iterdir()}


def test_json_is_all_that_is_on_stdout(orch: Orch, url: str) -> None:
    done = orch("bench", "run", url, *QUICK, "--json")
    assert Result.model_validate_json(done.stdout).cells[0].state == "done"
    assert "2 streams: " in done.stderr


def test_several_servers_are_targets_of_one_result(orch: Orch, url: str) -> None:
    with serving(answer("a", "b", "c", "d")) as other:
        done = orch("bench", "run", url, other.url, *QUICK, "--json")
    found = Result.model_validate_json(done.stdout)
    assert len(found.targets) == len(found.cells) == 2
    assert found.prompt_parity is not None


def test_a_key_is_sent_and_never_shown(orch: Orch, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-mine")
    with serving(answer("a", "b", "c", "d")) as engine:
        done = orch("bench", "run", engine.url, *QUICK)
        assert {headers.get("Authorization") for headers in engine.headers} == {"Bearer sk-of-mine"}
    everything = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    assert not any(b"sk-of-mine" in content for content in (*everything, done.stdout.encode(), done.stderr.encode()))


def test_a_password_in_the_url_is_sent_and_never_shown(orch: Orch, home: Path) -> None:
    with serving(answer("a", "b", "c", "d")) as engine:
        done = orch("bench", "run", engine.url.replace("//", "//me:geh%20heim@"), *QUICK, "--json")
        assert {headers.get("Authorization") for headers in engine.headers} == {"Basic bWU6Z2VoIGhlaW0="}
        assert Result.model_validate_json(done.stdout).targets[0].url == engine.url
    everything = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    assert not any(b"heim" in content for content in (*everything, done.stdout.encode(), done.stderr.encode()))


def test_a_header_is_sent_and_never_shown(orch: Orch, home: Path) -> None:
    with serving(answer("a", "b", "c", "d")) as engine:
        done = orch("bench", "run", engine.url, *QUICK, "--header", "api-key: geheim")
        assert {headers.get("api-key") for headers in engine.headers} == {"geheim"}
    everything = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    assert not any(b"geheim" in content for content in (*everything, done.stdout.encode(), done.stderr.encode()))
    assert "geheim" not in refused(orch, engine.url, "--header", "geheim")


def refused(orch: Orch, *arguments: str) -> str:
    """What is said about bad input; nothing was kept."""
    done = orch("bench", "run", *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.stderr


def test_a_url_without_a_server(orch: Orch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert f"127.0.0.1:{free.getsockname()[1]}" in refused(orch, f"http://127.0.0.1:{free.getsockname()[1]}")


def test_an_unknown_model_lists_those_that_the_server_has(orch: Orch) -> None:
    with serving(answer("a"), models=("qwen3-8b", "llama-3")) as engine:
        said = refused(orch, engine.url, "--model", "qwen3-9b")
    assert "has no model 'qwen3-9b'; it has qwen3-8b, llama-3" in said


def test_a_malformed_prompt_file_is_refused_with_its_line(orch: Orch, url: str, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "Hello"}\n{"prompt": \n')
    assert f"{file}:2" in refused(orch, url, "--prompts", str(file))


def test_an_slo_that_contradicts_itself(orch: Orch, url: str) -> None:
    assert "--slo: ttft may take 2 s, but the whole request (e2e) only 1 s" in refused(
        orch, url, "--slo", "ttft=2s,e2e=1s"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-c", "0"), "-c 0: every number must be above 0"),
        (("--input-tokens", "many"), "--input-tokens: 'many' is not tokens"),
        (("--sweep", "auto", "-c", "1"), "sweep: auto chooses the loads itself"),
        (("--fail-on-regression", "5%"), "has no baseline"),
        (("--baseline", "nothing"), "no benchmark 'nothing'"),
        (("--webhook", "nowhere"), "webhook"),
        (("--prompts", "nothing.jsonl"), "nothing.jsonl"),
    ],
)
def test_options_that_cannot_be(orch: Orch, url: str, arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(orch, url, *arguments)


def test_a_file_that_cannot_be_written_is_said_before_anything_is_measured(
    orch: Orch, url: str, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for option in ("--csv", "--html"):
        assert "cannot write" in refused(orch, url, *QUICK, option, str(tmp_path / "file" / "out"))
    assert not (home / "benchmarks").exists()
    assert orch("bench", "run", url, *QUICK, "--csv", str(tmp_path / "new" / "out.csv")).returncode == 0
    late = orch("bench", "report", "latest", "--html", str(tmp_path / "file" / "out"))
    assert (late.returncode, "cannot write" in late.stderr) == (2, True)


def test_a_regression_against_the_baseline_ends_with_exit_code_4(orch: Orch, url: str, home: Path) -> None:
    more = ("-c", "4", "--requests", "120", "--output-tokens", "4")
    assert orch("bench", "run", url, *more).returncode == 0
    assert orch("bench", "baseline", "set", "mine", "latest").returncode == 0
    with serving(slow) as worse:
        done = orch("bench", "run", worse.url, *more, "--baseline", "mine", "--fail-on-regression", "5%")
    assert done.returncode == 4, done.stderr
    assert "slower in TTFT p50" in done.stderr
    assert "slower in TTFT p50" in done.stdout
    newest, oldest = (result["id"] for result in Store(home).benchmarks(2))
    assert orch("bench", "compare", oldest, newest).returncode == 0
    assert orch("bench", "compare", oldest, newest, "--fail-on-regression", "5%").returncode == 4
    assert orch("bench", "compare", oldest, oldest, "--fail-on-regression", "5%").returncode == 0
    nothing = orch("bench", "run", url, *QUICK, "--baseline", "mine", "--fail-on-regression", "5%")
    assert nothing.returncode == 2
    assert "nothing was compared" in nothing.stderr


def test_a_webhook_is_told_of_the_outcome(orch: Orch, url: str) -> None:
    with listening() as (hook, told):
        orch("bench", "run", url, *QUICK, "--webhook", hook, "--name", "mine")
    assert [(message["event"], message["name"]) for message in told] == [("benchmark.finished", "mine")]


def test_a_webhook_that_is_not_heard_does_not_fail_the_benchmark(orch: Orch, url: str) -> None:
    with listening(status=400) as (hook, _):
        done = orch("bench", "run", url, *QUICK, "--webhook", hook)
    assert done.returncode == 0
    assert "warning" in done.stderr


def test_a_server_that_refuses_everything_is_exit_code_5_and_kept(orch: Orch, home: Path) -> None:
    async def full(body: dict[str, Any]) -> AsyncIterator[bytes]:
        if body["max_tokens"] > 1:
            raise Status(503, {"error": {"message": "queue is full"}})
        async for piece in answer("a")(body):
            yield piece

    with serving(full) as engine:
        done = orch("bench", "run", engine.url, *QUICK)
    assert done.returncode == 5
    assert "no cell of" in done.stderr
    assert Store(home).benchmark("latest")["cells"][0]["state"] == "failed"


@contextmanager
def running(home: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A benchmark in the middle of a cell whose requests are never answered."""

    async def endless(body: dict[str, Any]) -> AsyncIterator[bytes]:
        if body["max_tokens"] > 1:
            asked.set()
            await asyncio.Event().wait()
        async for piece in answer("a")(body):
            yield piece

    asked = threading.Event()
    with serving(endless) as engine:
        command = [sys.executable, "-m", "orchestrator.cli.main", "bench", "run", engine.url, "--duration", "60s"]
        environment = {**os.environ, "ORCH_HOME": str(home)}
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert asked.wait(30)
            yield process


def test_ctrl_c_ends_the_sweep_and_keeps_what_was_measured(home: Path) -> None:
    with running(home) as process:
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"stopped before its end" in said
    assert len(Store(home).benchmark("latest")["cells"]) == 1


def test_client_processes_end_without_a_word_when_the_command_is_killed(home: Path) -> None:
    with running(home) as process:
        process.kill()
        _, said = process.communicate(timeout=30)  # until the last one that holds the pipe has ended
    assert said == b""


def test_a_benchmark_that_was_killed_goes_on_with_the_cells_that_are_missing(orch: Orch, home: Path) -> None:
    async def stuck_at_two(body: dict[str, Any]) -> AsyncIterator[bytes]:
        if stuck and body["max_tokens"] > 1 and any(home.glob("benchmarks/*/*.records")):
            asked.set()
            await asyncio.Event().wait()
        async for piece in answer("a", "b", "c", "d")(body):
            yield piece

    asked, stuck = threading.Event(), [True]
    loads = ("-c", "1,2", "--requests", "8", "--output-tokens", "4")
    with serving(stuck_at_two) as engine:
        command = [sys.executable, "-m", "orchestrator.cli.main", "bench", "run", engine.url, *loads]
        environment = {**os.environ, "ORCH_HOME": str(home)}
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
            assert asked.wait(30)
            process.kill()
            said = process.communicate(timeout=30)[0].decode()
        stuck.clear()
        [folder] = (home / "benchmarks").iterdir()
        assert f"--resume {folder.name}" in said
        [first] = folder.glob("*.records")
        measured_at = first.stat().st_mtime_ns
        assert "other options" in refused(orch, engine.url, *loads, "--seed", "3", "--resume", "latest")
        assert folder.name in refused(orch, engine.url, *loads, "--resume", "b-none")
        done = orch("bench", "run", engine.url, *loads, "--resume", folder.name)
    assert done.returncode == 0, done.stderr
    kept = Store(home).benchmark("latest")
    assert kept["id"] == folder.name
    assert [cell["state"] for cell in kept["cells"]] == ["done", "done"]
    assert first.stat().st_mtime_ns == measured_at


RECIPE = """\
name: two-servers
benchmark:
  servers: [{{name: one, url: "{url}"}}]
  workload: {{synthetic: {{input_tokens: 64, output_tokens: 4}}}}
  concurrency: [2]
  num_requests: 8
gates:
  - {{on: benchmark.one.errors, max: {errors}}}
"""


def test_a_recipe_of_servers_is_measured_here_and_its_gates_are_judged(
    orch: Orch, url: str, tmp_path: Path, home: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(url=url, errors=0))
    done = orch("bench", "run", str(recipe))
    assert done.returncode == 0, done.stderr
    assert Store(home).benchmark("latest")["name"] == "two-servers"
    assert not (home / "ray.json").exists(), "Ray was started"
    recipe.write_text(RECIPE.format(url=url, errors=-1))
    assert orch("bench", "run", str(recipe)).returncode == 4


def test_a_recipe_says_itself_what_is_measured(orch: Orch, url: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(url=url, errors=0))
    assert "and --concurrency would too" in refused(orch, str(recipe), "-c", "1")
    assert "a recipe is run alone" in refused(orch, str(recipe), url)
    assert "no.yaml" in refused(orch, str(tmp_path / "no.yaml"))


@contextmanager
def listening(status: int = 200) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook's URL, and what it was told."""
    told: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook", told
        finally:
            server.shutdown()
            thread.join()


def test_another_tools_result_is_imported_shown_and_written_again(orch: Orch, tmp_path: Path) -> None:
    data = Path(__file__).parents[1] / "bench" / "data" / "guidellm.json"
    told = orch("bench", "import", str(data)).stdout
    assert "2 cells of 127.0.0.1" in told
    assert "from guidellm 0.8.1" in told
    assert "20 req/s" in orch("bench", "show", "latest").stdout
    written = orch("bench", "export", "latest", str(tmp_path / "out.json"), "--format", "vllm_bench").stdout.split()
    assert len(written) == 2
    assert all(json.loads(Path(path).read_text())["completed"] == 5 for path in written)
    (row, *_) = orch("bench", "export", "latest", str(tmp_path / "out.csv"), "--format", "csv").stdout.split()
    assert Path(row).read_text().count("\n") == 3
    refused = orch("bench", "import", str(tmp_path / "out.csv"))
    assert refused.returncode == 2


@pytest.mark.parametrize("form", ["aiperf", "vllm_bench"])
def test_each_cell_of_a_benchmark_goes_out_and_comes_back(orch: Orch, url: str, tmp_path: Path, form: str) -> None:
    assert orch("bench", "run", url, "-c", "1,2", "--requests", "12", "--output-tokens", "4").returncode == 0
    told = orch("bench", "export", "latest", str(tmp_path / "out" / "r.json"), "--format", form)
    assert told.returncode == 0, told.stderr
    summaries = sorted((tmp_path / "out").glob("*.json"))
    assert len(summaries) == 2
    for summary, streams in zip(summaries, (1, 2), strict=True):
        back = orch("bench", "import", str(summary))
        assert back.returncode == 0, back.stderr
        [cell] = json.loads(orch("bench", "show", back.stdout.split(":")[0], "--json").stdout)["cells"]
        assert (cell["concurrency"], cell["state"]) == (streams, "done")
