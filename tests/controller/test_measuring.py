"""A run that goes as far as its benchmark, and what it leaves behind."""

from pathlib import Path

import pytest

from orchestrator.clusters.cluster import Cluster, NodePool
from orchestrator.controller import measuring
from orchestrator.controller.planning import make_plan
from orchestrator.errors import InputError
from orchestrator.planner.plan import Plan
from orchestrator.recipe.load import load_recipe
from orchestrator.serving import releases
from orchestrator.store.store import Store

ROOT = Path(__file__).parents[2]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    loaded = load_recipe(ROOT / "recipes" / "quickstart.yaml", [], tmp_path)
    return make_plan(loaded, Cluster(name="laptop", nodes=[NodePool(cpus=2)]), Store(tmp_path), ROOT)


def test_only_what_the_benchmark_needs_is_run(plan: Plan) -> None:
    found = measuring.up_to_benchmark(plan)
    assert [stage.name for stage in found.stages] == ["prepare", "data", "train", "export", "deploy", "benchmark"]
    assert {gate.stage for gate in plan.gates} > {gate.stage for gate in found.gates}


def test_its_stages_are_those_of_the_whole_run(plan: Plan) -> None:
    kept = {stage.digest for stage in measuring.up_to_benchmark(plan).stages}
    assert kept < {stage.digest for stage in plan.stages}, "so that each can be reused by the other"


def test_a_recipe_without_a_benchmark_is_refused(plan: Plan) -> None:
    stages = [stage for stage in plan.stages if stage.name != "benchmark"]
    with pytest.raises(InputError, match=r"quickstart\.yaml has no `benchmark` section"):
        measuring.up_to_benchmark(plan.model_copy(update={"stages": stages}))


def test_what_was_deployed_to_be_measured_only_is_stopped(plan: Plan, tmp_path: Path) -> None:
    store, deploy = Store(tmp_path), plan.stage("deploy")
    assert deploy is not None
    assert plan.service is not None
    for digest in ("another", deploy.digest):
        release = store.get_or_create_release(plan.service, digest, "run", {"port": 1})
        store.move_release(release, "starting")
        store.move_release(release, "warm", url="http://127.0.0.1:1/v1", model=release.name)
    measuring.stop_candidate(store, plan)
    assert [release.state for release in store.releases(plan.service)] == ["warm", "stopped"]


def test_what_was_promoted_before_goes_on_serving(plan: Plan, tmp_path: Path) -> None:
    store, deploy = Store(tmp_path), plan.stage("deploy")
    assert deploy is not None
    assert plan.service is not None
    release = store.get_or_create_release(plan.service, deploy.digest, "run", {"port": 1})
    store.move_release(release, "starting")
    store.move_release(release, "warm", url="http://127.0.0.1:1/v1", model=release.name)
    releases.promote(store, store.release(plan.service, 1), "gates passed")
    measuring.stop_candidate(store, plan)
    assert store.release(plan.service, 1).state == "warm"
