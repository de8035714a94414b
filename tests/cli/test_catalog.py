"""orch models, gpus and prices, as a user runs them."""

import csv
import io
import json
from pathlib import Path

from orchestrator.catalog.catalog import load
from orchestrator.cli import catalog_show
from orchestrator.cli.catalog_show import API, GPUS, MODELS, PRICES, Column, Row
from tests.cli.conftest import Orch
from tests.cli.test_commands import HEAVY, _imports

CATALOG = load(directory=Path(__file__).parent)


def rendered(rows: list[Row], columns: list[Column], width: int) -> list[str]:
    from rich.console import Console

    out = Console(file=io.StringIO(), width=width, highlight=False)
    out.print(catalog_show.table(rows, columns, width))
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue().splitlines()


def test_models_are_searched_by_all_words(orch: Orch) -> None:
    found = json.loads(orch("models", "qwen3.5", "a3b", "--json").stdout)
    assert [row["id"] for row in found] == ["Qwen/Qwen3.5-35B-A3B"]
    assert found[0]["parameters"] == 34_660_610_688
    assert found[0]["kv_bytes_per_token"] == 20480
    assert (
        orch("models", "list", "qwen3.5", "a3b", "--json").stdout == orch("models", "Qwen3.5", "A3B", "--json").stdout
    )


def test_few_rows_say_where_they_were_read_and_many_on_request(orch: Orch) -> None:
    assert "ai-dynamo/aiconfigurator" in orch("models", "llama-3.1-405b").stdout
    assert "ai-dynamo/aiconfigurator" not in orch("gpus").stdout
    assert "ai-dynamo/aiconfigurator" in orch("gpus", "--sources").stdout


def test_nothing_found_is_bad_input(orch: Orch) -> None:
    done = orch("models", "no-such-model")
    assert done.returncode == 2
    assert "fewer words" in done.stderr


def test_prices_of_a_gpu_and_a_term(orch: Orch) -> None:
    rows = list(csv.DictReader(io.StringIO(orch("prices", "--gpu", "H100", "--term", "spot", "--csv").stdout)))
    assert rows
    assert {(row["gpu"], row["term"]) for row in rows} == {("h100-sxm", "spot")}
    found = json.loads(orch("prices", "--gpu", "H100", "--json").stdout)
    assert {row["gpu"] for row in found} == {"h100-sxm", "h100-pcie", "h100-nvl"}
    assert {row["gpu"] for row in json.loads(orch("prices", "--gpu", "H100-PCIe", "--json").stdout)} == {"h100-pcie"}
    assert orch("prices", "--term", "monthly").returncode == 2
    assert orch("prices", "--gpu", "H1").returncode == 2


def test_prices_of_hosted_models(orch: Orch) -> None:
    found = json.loads(orch("prices", "--api", "gpt-4o-mini", "--json").stdout)
    assert [row["output_usd_per_million"] for row in found] == [0.6]


def test_which_models_fit(orch: Orch) -> None:
    found = json.loads(orch("models", "fit", "llama", "--gpu", "RTX-4090", "--sequence-len", "2048", "--json").stdout)
    verdicts = {row["model"]: row["verdict"] for row in found}
    assert verdicts["meta-llama/Llama-3.2-1B"] == "fits"
    assert verdicts["meta-llama/Llama-3.1-405B"] == "does not fit"
    table = orch("models", "fit", "qwen3.5", "--gpu", "H100").stdout
    assert "predicted, not measured" in table
    assert "unknown" in table


def test_fit_refuses_what_is_no_fine_tune(orch: Orch) -> None:
    done = orch("models", "fit", "--task", "prefix", "--gpu", "H100")
    assert done.returncode == 2
    assert "--task" in done.stderr
    assert orch("models", "fit", "--gpu", "H1O0").returncode == 2


def test_a_user_s_own_price_is_shown(orch: Orch, tmp_path: Path) -> None:
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog" / "ours.yaml").write_text(
        "gpu_prices:\n- {gpu: mi355x, provider: Acme, usd_per_gpu_hour: 3, date: 2026-11, source: their mail}\n"
    )
    assert "Acme" in orch("prices", "mi355x", cwd=tmp_path).stdout
    (tmp_path / "catalog" / "ours.yaml").write_text(
        "gpu_prices:\n- {gpu: mi355x, provider: Acme, usd_per_gpu_hour: -3, date: 2026-11, source: their mail}\n"
    )
    done = orch("prices", "mi355x", cwd=tmp_path)
    assert done.returncode == 2
    assert "ours.yaml:2" in done.stderr


def test_tables_keep_to_the_terminal() -> None:
    tables = [
        (catalog_show.model_rows(CATALOG), MODELS),
        (catalog_show.gpu_rows(CATALOG), GPUS),
        (catalog_show.price_rows(CATALOG, None, None), PRICES),
        (catalog_show.api_rows(CATALOG), API),
    ]
    for width in (80, 100, 120, 160):
        for rows, columns in tables:
            lines = rendered(rows, columns, width)
            assert len(lines) == len(rows) + 1, f"a row is broken at {width} columns"


def test_the_commands_load_nothing_heavy(tmp_path: Path) -> None:
    for arguments in (["models"], ["gpus"], ["prices"], ["models", "fit", "--gpu", "H100"]):
        assert not _imports(*arguments, home=tmp_path) & {*HEAVY, "sqlalchemy", "numpy"}


def test_a_reason_takes_no_room_from_what_is_said_of_the_others(orch: Orch) -> None:
    said = orch("models", "fit", "qwen3", "--gpu", "RTX-4090", "--task", "qlora").stdout.splitlines()
    (row,) = [line for line in said if line.startswith("Qwen/Qwen3-8B ")]
    assert row.split()[1] == "8.191B"
    assert row.split()[-1] == "fits"
