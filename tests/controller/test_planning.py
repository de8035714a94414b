"""Every recipe plans on every cluster; a digest changes with what a stage reads and with nothing else."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.clusters.cluster import Cluster, NodePool
from orchestrator.clusters.load import load_cluster
from orchestrator.controller.planning import make_plan
from orchestrator.engines import vllm
from orchestrator.errors import InputError
from orchestrator.planner.plan import Plan
from orchestrator.recipe.load import load_recipe
from orchestrator.store.store import Store
from orchestrator.units import Usd

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
CLUSTERS = sorted((ROOT / "clusters").glob("*.yaml"))
LAPTOP = Cluster(name="laptop", nodes=[NodePool(cpus=2)])


def _plan(home: Path, recipe: Path, *overrides: str, cluster: Cluster = LAPTOP, cwd: Path = ROOT) -> Plan:
    return make_plan(load_recipe(recipe, list(overrides), home), cluster, Store(home), cwd)


def _changed(home: Path, *overrides: str) -> list[str]:
    recipe = ROOT / "recipes" / "quickstart.yaml"
    before, after = _plan(home, recipe), _plan(home, recipe, *overrides)
    return [a.name for a, b in zip(after.stages, before.stages, strict=True) if a.digest != b.digest]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize("cluster", CLUSTERS, ids=lambda path: path.stem)
def test_every_recipe_plans_on_every_cluster(recipe: Path, cluster: Path, tmp_path: Path) -> None:
    found = _plan(tmp_path, recipe, cluster=load_cluster(cluster))
    names = [stage.name for stage in found.stages]
    assert names[:2] == ["prepare", "data"] or names == ["benchmark"]
    assert found == Plan.model_validate_json(found.model_dump_json())


def test_a_plan_takes_the_first_accelerator_that_the_cluster_has(tmp_path: Path) -> None:
    recipe = ROOT / "recipes" / "legal-qlora.yaml"
    found = _plan(tmp_path, recipe, cluster=load_cluster(ROOT / "clusters" / "mi300x8.yaml"))
    assert found.accelerator == "MI300X"
    assert {stage.name for stage in found.stages if stage.resources.num_gpus} >= {"train", "evaluate"}


def test_a_cluster_without_the_accelerator_is_an_obstacle_and_not_a_crash(tmp_path: Path) -> None:
    found = _plan(tmp_path, ROOT / "recipes" / "legal-qlora.yaml")
    assert found.obstacles == [
        "the recipe needs H100:1 or A100-80GB:1 or MI300X:1 on one node; cluster 'laptop' has no accelerator"
    ]


def test_changing_the_benchmark_changes_it_and_what_follows(tmp_path: Path) -> None:
    assert _changed(tmp_path, "benchmark.concurrency=[2]") == ["benchmark", "promote"]


def test_changing_training_leaves_the_data_alone(tmp_path: Path) -> None:
    changed = _changed(tmp_path, "train.learning_rate=1e-5")
    assert changed == ["train", "evaluate", "export", "parity", "deploy", "benchmark", "promote"]


def test_another_version_of_a_quantizer_makes_the_exports_again(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "rows.jsonl").write_text("one\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(EXPORTS.split("export:")[0] + "export: [{name: a, engine: vllm, quantization: FP8}]\n")
    before = _plan(tmp_path, recipe, cwd=tmp_path)
    serving, quantizer = vllm.ENVIRONMENTS
    monkeypatch.setattr(vllm, "ENVIRONMENTS", (serving, quantizer.at("9")))
    after = _plan(tmp_path, recipe, cwd=tmp_path)
    assert [a.name for a, b in zip(after.stages, before.stages, strict=True) if a.digest != b.digest] == ["export"]


@pytest.mark.parametrize(
    "wanted", [{"versions": {"llm_compressor": "9"}}, {"images": {"llm_compressor": "mine:2"}}], ids=str
)
def test_a_version_or_an_image_of_the_cluster_file_makes_the_exports_again(tmp_path: Path, wanted: Any) -> None:
    (tmp_path / "rows.jsonl").write_text("one\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(EXPORTS.split("export:")[0] + "export: [{name: a, engine: vllm, quantization: FP8}]\n")
    before = _plan(tmp_path, recipe, cwd=tmp_path)
    after = _plan(tmp_path, recipe, cluster=LAPTOP.model_copy(update=wanted), cwd=tmp_path)
    assert [a.name for a, b in zip(after.stages, before.stages, strict=True) if a.digest != b.digest] == ["export"]


def test_the_name_of_a_recipe_changes_nothing(tmp_path: Path) -> None:
    assert _changed(tmp_path, "name=other") == []


def test_a_changed_row_changes_everything_and_a_moved_file_nothing(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: demo\nbase_model: org/model\ndatasets: [{path: rows.jsonl}]\n")
    (tmp_path / "rows.jsonl").write_text("one\n")
    first = _plan(tmp_path / "home", recipe, cwd=tmp_path)
    (tmp_path / "rows.jsonl").rename(tmp_path / "moved.jsonl")
    moved = _plan(tmp_path / "home", recipe, "datasets=[{path: moved.jsonl}]", cwd=tmp_path)
    assert [stage.digest for stage in moved.stages][1] == [stage.digest for stage in first.stages][1]
    (tmp_path / "moved.jsonl").write_text("two\n")
    other = _plan(tmp_path / "home", recipe, "datasets=[{path: moved.jsonl}]", cwd=tmp_path)
    assert all(a.digest != b.digest for a, b in zip(moved.stages, other.stages, strict=True))


@pytest.mark.parametrize("override", ["datasets=[{path: data/none.jsonl}]", "base_model=./no-such-model"])
def test_a_missing_path_is_bad_input(tmp_path: Path, override: str) -> None:
    with pytest.raises(InputError, match="no file"):
        _plan(tmp_path, ROOT / "recipes" / "quickstart.yaml", override)


EXPORTS = """\
name: demo
base_model: org/model
datasets: [{path: rows.jsonl}]
train: {}
export:
- {name: a, engine: llama_cpp, quantization: Q8_0}
- {name: b, engine: llama_cpp, quantization: F16}
serve: {service: svc, target: a}
resources: {accelerators: ["H100:4"]}
"""


def _measured(tmp_path: Path, benchmark: str, gpus: int, **price: Any) -> Plan:
    (tmp_path / "rows.jsonl").write_text("one\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(EXPORTS + f"benchmark: {benchmark}\n")
    nodes = [NodePool(cpus=8, accelerator="H100", accelerators=gpus, **price)]
    return _plan(tmp_path / "home", recipe, cluster=Cluster(name="lab", nodes=nodes), cwd=tmp_path)


def test_a_benchmark_knows_what_an_engine_s_share_of_its_node_costs(tmp_path: Path) -> None:
    stage = _measured(tmp_path, "{}", 8, usd_per_hour=Usd(20), price_source="list price").stage("benchmark")
    assert stage is not None
    assert (stage.config["usd_per_hour"], stage.config["price_source"]) == (10.0, "list price")
    assert stage.resources.num_gpus == 0, "the deployed engine holds its own"
    unknown = _measured(tmp_path, "{}", 8).stage("benchmark")
    assert unknown is not None
    assert unknown.config["usd_per_hour"] is None


def test_engines_that_a_benchmark_starts_need_room_beside_the_deployed_one(tmp_path: Path) -> None:
    enough = _measured(tmp_path, "{targets: [a, b]}", 8)
    assert enough.obstacles == []
    stage = enough.stage("benchmark")
    assert stage is not None
    assert stage.resources.num_gpus == 4
    assert _measured(tmp_path, "{targets: [a, b]}", 4).obstacles == [
        "the benchmark starts engines beside the deployed one, which takes H100:8 on one node; cluster 'lab' has H100:4"
    ]
    assert _measured(tmp_path, "{targets: [a]}", 4).obstacles == []


def test_the_prompts_of_a_benchmark_are_part_of_its_identity(tmp_path: Path) -> None:
    recipe, prompts = tmp_path / "recipe.yaml", tmp_path / "prompts.jsonl"
    server = "{name: mine, url: http://127.0.0.1:8000/v1}"
    recipe.write_text(f"name: x\nbenchmark: {{servers: [{server}], workload: {{dataset: prompts.jsonl}}}}\n")
    with pytest.raises(InputError, match=r"no file prompts\.jsonl"):
        _plan(tmp_path / "home", recipe, cwd=tmp_path)
    digests = []
    for text in ("one\n", "two\n", "one\n"):
        prompts.write_text(text)
        digests.append(_plan(tmp_path / "home", recipe, cwd=tmp_path).stages[0].digest)
    assert digests[0] == digests[2] != digests[1]
