"""What is known to be wrong before anything starts, and what is not."""

from pathlib import Path

import pytest

from orchestrator.clusters.cluster import Cluster, NodePool, Quota
from orchestrator.controller.planning import make_plan
from orchestrator.controller.preflight import check
from orchestrator.errors import InputError, NotAllowedError
from orchestrator.planner.plan import Plan, PlannedStage, Queueing, Resources
from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.recipe import Recipe
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


def _of_team(team: str, num_gpus: float) -> Plan:
    quotas = {"law": Quota(gpus=4, borrow=2), "bio": Quota(gpus=4)}
    stages = [PlannedStage(name="train", config={}, digest="d", resources=Resources(num_gpus=num_gpus))]
    return Plan(recipe="demo", path="", directory="", cluster=Cluster(name="big", quotas=quotas), accelerator="H100",
                stages=stages, gates=[], service=None, obstacles=[], queueing=Queueing(team=team))  # fmt: skip


def test_a_run_that_its_team_could_never_hold_is_refused(tmp_path: Path) -> None:
    recipe = Recipe(name="demo")
    for fits in (_of_team("law", 6), _of_team("bio", 64), _of_team("", 64)):
        check(recipe, fits, tmp_path, tmp_path)
    with pytest.raises(NotAllowedError, match="needs 8 accelerators at once, team 'law' may hold 4 and borrow 2"):
        check(recipe, _of_team("law", 8), tmp_path, tmp_path)
    with pytest.raises(InputError, match="no quota for a team 'low'; did you mean 'law'"):
        check(recipe, _of_team("low", 1), tmp_path, tmp_path)
