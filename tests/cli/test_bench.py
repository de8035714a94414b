"""`orch bench` as a user types it."""

import json
from pathlib import Path

import pytest

from orchestrator.store.store import Store
from tests.bench.fake_result import fake_result
from tests.cli.conftest import Orch
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
    heavy = {*HEAVY, "numpy", "httpx", "plotext", "sqlalchemy", "pydantic"}
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
