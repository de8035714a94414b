"""Commands that start nothing: help, plan, schema, status, releases."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Orch

HEAVY = ("torch", "transformers", "ray", "peft", "matplotlib", "aiohttp", "jinja2", "gguf", "psycopg", "fsspec")


def _imports(*arguments: str, home: Path) -> set[str]:
    """The modules that a command has loaded when it ends."""
    code = (
        "import sys, json, os; from orchestrator.cli import main; sys.argv[0] = 'orch'\n"
        "try: main.main()\nexcept SystemExit: pass\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    environment = {"ORCH_HOME": str(home), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "recipes/quickstart.yaml"], ["status"], ["releases"]])
def test_a_light_command_loads_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    assert not _imports(*arguments, home=tmp_path) & set(HEAVY)


def test_help_loads_neither_the_store_nor_the_recipe_language(tmp_path: Path) -> None:
    assert not _imports("--help", home=tmp_path) & {"sqlalchemy", "pydantic", "yaml", "aiohttp"}


def test_the_plan_is_a_table_or_json(orch: Orch) -> None:
    table = orch("plan", "recipes/legal-qlora.yaml", "-c", "clusters/h100x8.yaml")
    assert table.returncode == 0
    assert "H100 of cluster h100x8" in table.stdout.replace("on ", "")
    assert "gate   parity.gguf.kl_mean  max 0.02" in table.stdout
    found = json.loads(orch("plan", "recipes/quickstart.yaml", "--json").stdout)
    assert [stage["name"] for stage in found["stages"]][-1] == "promote"


def test_explain_names_the_origin_of_every_value(orch: Orch) -> None:
    lines = orch("plan", "recipes/legal-qlora.yaml", "train.num_epochs=2", "--explain").stdout.splitlines()
    found = {line.split()[0]: line for line in lines}
    assert "recipes/legal-qlora.yaml:" in found["train.sequence_len"]
    assert "recipes/defaults/qlora.yaml:" in found["train.lora_r"]
    assert "command line" in found["train.num_epochs"]
    assert "built-in default" in found["train.lora_dropout"]


def test_the_schema_describes_every_section(orch: Orch) -> None:
    schema = json.loads(orch("schema").stdout)
    assert schema["additionalProperties"] is False
    assert {"train", "export", "gates", "serve"} <= schema["properties"].keys()


def test_status_of_an_empty_home_says_where_to_start(orch: Orch) -> None:
    assert "recipes/quickstart.yaml" in orch("status").stdout
    assert json.loads(orch("status", "--json").stdout) == {"services": [], "runs": []}
