"""What is known to be wrong before anything starts, and what is not."""

from pathlib import Path

from orchestrator.clusters.cluster import Cluster, NodePool
from orchestrator.controller.planning import make_plan
from orchestrator.controller.preflight import check
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
