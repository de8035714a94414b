"""`orch cost` as a finance person meets it: tables, JSON, CSV, and errors that say what to do."""

import csv
import io
import json

import pytest
from typer.testing import CliRunner

from orchestrator.cli import main  # noqa: F401  registers the commands
from orchestrator.cli.app import app
from orchestrator.errors import InputError
from tests.cli.conftest import Orch
from tests.cli.test_commands import HEAVY, _imports

CASE = ("cost", "compare", "--tokens-per-month", "1.5B", "--versus", "gpt-4o", "--gpu", "H100")
MIX = ("--input-share", "0.75")
FLEET = ("--gpus-per-replica", "2", "--tokens-per-second-per-replica", "4000")


def test_the_tables_end_with_a_conclusion(orch: Orch) -> None:
    done = orch(*CASE, *MIX, *FLEET)
    assert done.returncode == 0, done.stderr
    for words in (
        "1.5 B tokens a month, 75% input; API $4.419 per million of this mix",
        "GPUs, spare",
        "3 years, with it",
        "what moves it",
        "USD a month over tokens a month:   ■ self-hosted   ● api   ▲ hybrid   ┊ this load",
        "cheapest over 3 years: API",
        "break-even of the running costs:",
        "the hybrid costs less than the API alone from",
    ):
        assert words in done.stdout


def test_json_and_csv_agree_and_hold_every_assumption(orch: Orch, tmp_path) -> None:
    path = tmp_path / "cost.csv"
    found = json.loads(orch(*CASE, *MIX, *FLEET, "--json", "--csv", str(path)).stdout)
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    totals = {row["way"]: float(row["value"]) for row in rows if (row["section"], row["item"]) == ("monthly", "total")}
    assert totals == {bill["way"]: pytest.approx(bill["usd_per_month"], abs=0.01) for bill in found["bills"]}
    listed = [row["item"] for row in rows if row["section"] == "assumption"]
    assert listed == [listed["assumption"]["id"] for listed in found["assumptions"]]
    assert all(row["note"] for row in rows if row["section"] == "assumption")


def test_an_assumption_is_set_by_option_or_file_and_names_its_origin(orch: Orch, tmp_path) -> None:
    own = tmp_path / "finance.yaml"
    own.write_text("staff:\n  run_fte: 0.1\n  usd_per_year: $200k\n")
    done = orch(*CASE, *MIX, "--json", "--assumptions", str(own), "--set", "api.cache_hit_share=40%")
    found = {a["assumption"]["id"]: a["assumption"] for a in json.loads(done.stdout)["assumptions"]}
    assert (found["staff.run_fte"]["value"], found["staff.run_fte"]["source"]) == (0.1, f"{own}:2")
    assert found["staff.usd_per_year"]["value"] == 200_000
    assert (found["api.cache_hit_share"]["value"], found["api.cache_hit_share"]["source"]) == (
        0.4,
        "--set api.cache_hit_share=40%",
    )


def test_a_models_throughput_is_predicted_and_says_so(orch: Orch) -> None:
    done = orch(*CASE, *MIX, "--model", "meta-llama/Llama-3.1-70B-Instruct", "--quantization", "fp8", "--json")
    found = {a["assumption"]["id"]: a["assumption"] for a in json.loads(done.stdout)["assumptions"]}
    assert found["serving.gpus_per_replica"]["value"] == 2
    speed = found["serving.tokens_per_s_per_replica"]
    assert speed["low"] < speed["value"] < speed["high"]
    assert speed["source"].startswith("predicted for vllm, fp8, 2x H100")


def test_a_recipe_says_what_is_hosted(orch: Orch) -> None:
    done = orch("cost", "compare", "recipes/legal-qlora.yaml", "--tokens-per-month", "1.5B", "--versus", "gpt-4o", *MIX)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Qwen/Qwen3-8B (Q8_0, llama_cpp) on H100 SXM5 80GB  against  openai/gpt-4o")


def test_a_recipe_that_takes_any_gpu_is_compared_on_the_one_that_its_plan_takes(orch: Orch, tmp_path) -> None:
    recipe = tmp_path / "any.yaml"
    recipe.write_text(
        "name: any\nbase_model: Qwen/Qwen3-8B\nresources: {accelerators: any}\n"
        "datasets: [{path: a/b, type: chat}]\ntrain: {adapter: qlora}\n"
        "export: [{name: q, engine: llama_cpp, quantization: Q8_0}]\nserve: {service: any, target: q}\n"
    )
    done = orch("cost", "compare", str(recipe), "--tokens-per-month", "1.5B", "--versus", "gpt-4o", *MIX)
    assert done.returncode == 0, done.stderr
    assert "Qwen/Qwen3-8B (Q8_0, llama_cpp) on " in done.stdout


def test_the_claims_of_the_article_are_checked(orch: Orch) -> None:
    done = orch("cost", "claims")
    assert done.returncode == 0, done.stderr
    assert "A1 wrong" in done.stdout
    assert "A2 right" in done.stdout


def test_the_assumptions_are_listed_with_their_sources(orch: Orch) -> None:
    done = orch("cost", "assumptions")
    assert "staff.run_fte = 0.5 FTE, 0.25 to 1.5" in done.stdout
    assert done.stdout.count("Source:") == len(json.loads(orch("cost", "assumptions", "--json").stdout))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (CASE, "--input-share is missing: a hosted API asks several times as much for an output token"),
        ((*CASE, "--input-share", "1.5"), "a share is between 0% and 100%"),
        ((*CASE[:5], "gpt-4p", *CASE[6:], *MIX), "nearest: gpt-4o"),
        ((*CASE[:5], "kimi-k2.5", *CASE[6:], *MIX), "say which: novita/kimi-k2.5, venice/kimi-k2.5"),
        ((*CASE[:3], "-5", *CASE[4:], *MIX), "'-5' is not tokens"),
        ((*CASE[:3], "0", *CASE[4:], *MIX), "nothing to compare"),
        ((*CASE[:6], *MIX), "what is self-hosted?"),
        ((*CASE[:7], "H1000", *MIX), "the catalog has no GPU 'H1000'"),
        ((*CASE[:7], "MI355X", *MIX), "no on-demand price for MI355X"),
        ((*CASE, *MIX, "--set", "staff.run_ft=1"), "did you mean staff.run_fte"),
        ((*CASE, *MIX, "--set", "staff.run_fte=-1"), "staff.run_fte=-1: must be between 0"),
        ((*CASE, *MIX, "--set", "staff.run_fte=half"), "a number is needed"),
        ((*CASE, *MIX, "--set", "staff.run_fte"), "write NAME=VALUE"),
        ((*CASE, *MIX, "--on", "tomorrow"), "write a day like 2026-11-24"),
        ((*CASE, *MIX, "--provider", "Nobody"), "no on-demand price of Nobody for H100"),
        ((*CASE, *MIX, "--tokens-per-second-per-replica", "0"), "must be between 0.001"),
        ((*CASE, *MIX, "--model", "meta-llama/Llama-3.1-405B"), "does not fit"),
    ],
)
def test_bad_input_is_an_error_that_says_what_to_do(
    arguments: tuple[str, ...], words: str, monkeypatch, tmp_path
) -> None:
    monkeypatch.setenv("ORCH_HOME", str(tmp_path))
    error = CliRunner().invoke(app, list(arguments)).exception
    assert isinstance(error, InputError)
    assert words in str(error)


def test_an_error_is_one_message_and_exit_code_2(orch: Orch) -> None:
    done = orch(*CASE)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --input-share is missing")
    assert "next: --input-share 0.75 stands for" in done.stderr


def test_a_price_of_the_past_can_be_asked_for(orch: Orch) -> None:
    case = (
        "cost",
        "compare",
        "--tokens-per-month",
        "1B",
        "--versus",
        "claude-sonnet-5",
        "--gpu",
        "H100",
        *MIX,
        "--json",
    )
    before, after = (json.loads(orch(*case, "--on", day).stdout) for day in ("2026-08-31", "2026-09-01"))
    assert before["api_usd_per_million"] < after["api_usd_per_million"]
    assert "valid from 2026-09-01" in after["api_price"]


def test_a_comparison_loads_nothing_heavy(tmp_path) -> None:
    assert not _imports(*CASE, *MIX, "--no-plot", home=tmp_path) & {*HEAVY, "numpy", "sqlalchemy", "plotext"}
