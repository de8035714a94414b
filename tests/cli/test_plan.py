"""`orch plan`, `orch cost` and `orch resume` as a user types them."""

import json
from pathlib import Path

import pytest

from orchestrator.cli.plan_words import amount, interval, money, seconds, spread, text
from orchestrator.cli.topic import joined
from orchestrator.planner.estimate import Estimate, Unknown
from tests.cli.conftest import ROOT, Orch

H100 = ("-c", str(ROOT / "clusters" / "h100x8.yaml"))
RECIPE = """\
name: demo
base_model: {model}
datasets: [{{path: rows.jsonl}}]
train: {{adapter: qlora}}
export: [{{name: gguf, engine: llama_cpp, quantization: Q8_0}}]
serve: {{service: svc, target: gguf}}
resources: {{accelerators: [H100:1, H100:2, L4:1]}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    row = {"messages": [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "MIT"}]}
    (tmp_path / "rows.jsonl").write_text((json.dumps(row) + "\n") * 100)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(model="meta-llama/Llama-3.1-8B-Instruct"))
    return tmp_path


@pytest.mark.parametrize("columns", ["80", "120"])
def test_the_plan_answers_the_questions_within_the_width_of_a_screen(
    orch: Orch, folder: Path, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    done = orch("plan", "recipe.yaml", *H100, "budget.max_cost_usd=50", cwd=folder)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= int(columns)
    assert len(lines) <= 80
    for section in ("Memory", "Time and cost", "Targets", "Layouts, by cost", "Licence", "Budget"):
        assert section in lines
    assert "fits: training needs" in done.stdout
    assert "> the plan takes it" in done.stdout


def test_explain_memory_prints_the_sum_with_the_reason_of_each_term(orch: Orch, folder: Path) -> None:
    lines = orch("plan", "recipe.yaml", *H100, "--explain", "memory", cwd=folder).stdout.splitlines()
    terms = [line.split() for line in lines[1 : next(i for i, line in enumerate(lines) if "= GiB" in line)]]
    total = float(next(line for line in lines if "= GiB" in line).split()[0])
    assert sum(float(term[0]) for term in terms) == pytest.approx(total, abs=0.01)
    assert all(len(term) > 2 for term in terms)
    assert any(line.startswith("serving gguf") for line in lines)


def test_explain_alone_or_before_the_recipe_means_the_origins_of_values() -> None:
    assert joined(["r.yaml", "--explain"]) == ["r.yaml", "--explain=origins"]
    assert joined(["--explain", "r.yaml"]) == ["--explain=origins", "r.yaml"]
    assert joined(["--explain", "memory", "r.yaml"]) == ["--explain=memory", "r.yaml"]
    assert joined(["r.yaml", "--explain", "a.b=1"]) == ["r.yaml", "--explain=origins", "a.b=1"]


def test_a_misspelt_topic_names_the_nearest(orch: Orch, folder: Path) -> None:
    for words in (("--explain", "memroy"), ("--explain=memroy",)):
        done = orch("plan", *words, "recipe.yaml", cwd=folder)
        assert done.returncode == 2
        assert "no topic 'memroy'; did you mean 'memory'?" in done.stderr


def test_a_forbidden_licence_is_exit_code_3_and_a_reason_is_recorded(orch: Orch, folder: Path) -> None:
    with (folder / "recipe.yaml").open("a") as file:
        file.write("compliance: {use: commercial, monthly_active_users: 800_000_000}\n")
    for command in ("plan", "run"):
        assert orch(command, "recipe.yaml", *H100, cwd=folder).returncode == 3
    taken = orch("plan", "recipe.yaml", *H100, "--accept-license-risk", "a grant", "--json", cwd=folder)
    assert taken.returncode == 0
    assert json.loads(taken.stdout)["forecast"]["license"]["accepted"]["reason"] == "a grant"
    empty = orch("plan", "recipe.yaml", *H100, "--accept-license-risk", " ", cwd=folder)
    assert empty.returncode == 2
    assert "needs a reason" in empty.stderr


def test_the_schema_describes_what_plan_prints_as_json(orch: Orch, folder: Path) -> None:
    schema = json.loads(orch("schema", "plan").stdout)
    found = json.loads(orch("plan", "recipe.yaml", *H100, "--json", cwd=folder).stdout)
    assert found.keys() <= schema["properties"].keys()
    forecast = schema["$defs"]["Forecast"]
    assert found["forecast"].keys() <= forecast["properties"].keys()
    assert forecast["properties"]["layouts"]["description"]
    wrong = orch("schema", "plans")
    assert wrong.returncode == 2
    assert "did you mean 'plan'?" in wrong.stderr


def test_a_plan_without_a_recipe_says_what_is_missing(orch: Orch) -> None:
    done = orch("plan")
    assert done.returncode == 2
    assert "which recipe?" in done.stderr


def test_the_accuracy_of_no_run_is_empty(orch: Orch) -> None:
    assert "no run has carried out" in orch("plan", "--accuracy").stdout
    assert json.loads(orch("plan", "--accuracy", "--json").stdout)["rows"] == []


def test_what_a_run_costs_by_provider_and_term(orch: Orch, folder: Path) -> None:
    found = json.loads(orch("cost", "recipe.yaml", "resources.accelerators=[H100:1]", "--json", cwd=folder).stdout)
    terms = {offer["term"].partition("-")[0] for offer in found["offers"]}
    assert {"on", "spot", "reserved"} <= terms
    costs = [offer["cost"]["value"] for offer in found["offers"]]
    assert costs == sorted(costs)
    assert "on-demand" in orch("cost", "run", "recipe.yaml", cwd=folder).stdout
    no_gpu = orch("cost", "recipe.yaml", "resources.accelerators=[]", cwd=folder)
    assert no_gpu.returncode == 2
    assert "resources.accelerators" in no_gpu.stderr


@pytest.mark.parametrize(
    ("override", "code", "expected"),
    [
        ("resources.accelerators=[H10O:1]", 2, "the catalog has no GPU 'H10O'; nearest: H100"),
        ("resources.accelerators=H100", 2, "KIND:COUNT"),
        ("budget.max_cost_usd=-1", 2, "budget.max_cost_usd: -1 is not usd"),
        ("compliance.use=commerce", 2, "compliance.use: input should be 'research', 'internal' or 'commercial'"),
        ("budget.max_cost_usd=0.001", 3, ""),
    ],
)
def test_bad_input_is_one_clear_error(orch: Orch, folder: Path, override: str, code: int, expected: str) -> None:
    done = orch("plan", "recipe.yaml", *H100, override, cwd=folder)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert expected in done.stderr


def test_numbers_are_written_with_the_unit_of_the_middle() -> None:
    assert spread(720, 300, 6000, seconds) == "12 min (5-100)"
    assert spread(0.042, 0.02, 0.9, seconds) == "42 ms (20-900)"
    assert spread(6.4, 3.1, 12, money) == "$6.40 (3.10-12.00)"
    assert text(1234, amount) == "1.2k"
    assert text(0.0004, money) == "<$0.01"
    assert interval(Unknown(reason="unknown", low=90), seconds) == "> 1.5 min"
    assert interval(Unknown(reason="unknown"), seconds) == "?"
    exact = Estimate(unit="s", value=2, low=2, high=2)
    assert interval(exact, seconds) == "2 s"
