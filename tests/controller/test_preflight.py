"""What is known to be wrong before anything starts, and what is not."""

from pathlib import Path

import pytest

from orchestrator.clusters.cluster import Cluster, NodePool
from orchestrator.controller.planning import make_plan
from orchestrator.controller.preflight import check
from orchestrator.errors import InputError
from orchestrator.recipe.load import load_recipe
from orchestrator.store.store import Store


def test_a_folder_of_rows_passes_unread(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: demo\nbase_model: org/model\ndatasets: [{path: org/rows}]\ntest_datasets: [{path: ./rows}]\n"
    )
    home = tmp_path / "home"
    loaded, cluster = load_recipe(recipe, [], home), Cluster(name="laptop", nodes=[NodePool(cpus=2)])
    check(loaded.recipe, make_plan(loaded, cluster, Store(home), tmp_path), home, tmp_path)


def _check(tmp_path: Path, benchmark: str) -> None:
    recipe, home = tmp_path / "recipe.yaml", tmp_path / "home"
    recipe.write_text(f"name: demo\nbenchmark:\n  {benchmark}\n")
    loaded, cluster = load_recipe(recipe, [], home), Cluster(name="laptop", nodes=[NodePool(cpus=2)])
    check(loaded.recipe, make_plan(loaded, cluster, Store(home), tmp_path), home, tmp_path)


def test_a_key_that_is_not_set_is_refused_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    servers = "servers: [{name: a, url: http://127.0.0.1:9/v1, api_key: '${A_SERVER_KEY}'}]"
    monkeypatch.delenv("A_SERVER_KEY", raising=False)
    with pytest.raises(InputError, match="A_SERVER_KEY is not set"):
        _check(tmp_path, servers)
    monkeypatch.setenv("A_SERVER_KEY", "x")
    _check(tmp_path, servers)


@pytest.mark.parametrize(
    ("name", "text", "workload"), [("p.jsonl", '{"prompt": "a"}\nno\n', "dataset"), ("t.csv", "a,b\n", "trace")]
)
def test_prompts_that_cannot_be_read_are_refused_before_the_start(
    tmp_path: Path, name: str, text: str, workload: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=name):
        _check(tmp_path, f"servers: [{{name: a, url: http://127.0.0.1:9/v1}}]\n  workload: {{{workload}: {name}}}")
