"""Export targets in a plan: what is served where, what is left out, and what is shown of each."""

import shutil
from pathlib import Path

import pytest

from orchestrator import engines
from orchestrator.clusters.cluster import Cluster, NodePool
from orchestrator.controller import measuring, preflight
from orchestrator.controller.planning import make_plan
from orchestrator.engines import llama_cpp
from orchestrator.errors import NotAllowedError
from orchestrator.planner.plan import Plan
from orchestrator.recipe.load import load_recipe
from orchestrator.store.store import Store
from tests.controller.conftest import FAKES

pytestmark = pytest.mark.usefixtures("fake_engines")
RECIPE = """\
name: demo
base_model: Qwen/Qwen3-8B
datasets: [{path: rows.jsonl}]
test_datasets: [{path: rows.jsonl}]
train: {adapter: lora}
export:
- {name: gguf, engine: llama_cpp, quantization: Q8_0}
- {name: fp8, engine: sglang, quantization: fp8, required: false}
benchmark: {targets: [gguf, fp8], concurrency: [1]}
gates:
- {on: parity.gguf.kl_mean, max: 0.1}
- {on: parity.fp8.kl_mean, max: 0.1}
- {on: benchmark.fp8.errors, max: 0}
"""
SERVED = "serve={service: svc, target: fp8}"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text('{"messages": []}\n')
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def _plan(folder: Path, *overrides: str, kinds: tuple[str, ...] = (), **cluster: dict[str, str]) -> Plan:
    pools = [NodePool(cpus=8, accelerator=kind, accelerators=2) for kind in kinds] or [NodePool(cpus=2)]
    wanted = [f"resources.accelerators=[{', '.join(f'{kind}:1' for kind in kinds)}]"] if kinds else []
    store = Store(folder / "home")
    loaded = load_recipe(folder / "recipe.yaml", [*wanted, *overrides], store.home)
    return make_plan(loaded, Cluster(name="lab", nodes=pools, **cluster), store, folder)


def _made(plan: Plan, stage: str) -> list[str]:
    found = plan.stage(stage)
    assert found is not None
    return [target if isinstance(target, str) else target["name"] for target in found.config["targets"]]


def test_a_target_that_is_not_required_is_left_out_where_it_cannot_be_served(folder: Path) -> None:
    found = _plan(folder)
    assert found.obstacles == []
    gguf, fp8 = found.targets
    assert (gguf.refused, fp8.refused, fp8.left_out) == (None, "no NVIDIA GPU", True)
    assert (_made(found, "export"), _made(found, "benchmark")) == (["gguf"], ["gguf"])
    assert [gate.on for gate in found.gates] == ["parity.gguf.kl_mean"]
    assert [gate.on for gate in found.skipped_gates] == ["parity.fp8.kl_mean", "benchmark.fp8.errors"]
    assert found.forecast is not None
    assert [target.name for target in found.forecast.targets] == ["gguf"]


def test_where_it_can_be_served_it_is_like_any_other(folder: Path) -> None:
    found = _plan(folder, kinds=("H100",))
    assert _made(found, "export") == _made(found, "benchmark") == ["gguf", "fp8"]
    assert found.skipped_gates == []


def test_whether_a_target_is_required_does_not_change_what_is_made(folder: Path) -> None:
    stages = [_plan(folder, f"export.1.required={word}", kinds=("H100",)).stage("export") for word in ("true", "false")]
    assert stages[0] == stages[1]


def test_a_required_target_that_the_cpu_cannot_serve_is_an_obstacle_with_a_way_out(folder: Path) -> None:
    found = _plan(folder, "export.1.required=true")
    assert found.obstacles == ["fp8 cannot be served here: no NVIDIA GPU"]
    assert found.refused
    assert found.advice == "another engine for fp8, or `required: false` to go on without it"
    loaded = load_recipe(folder / "recipe.yaml", [], folder / "home")
    with pytest.raises(NotAllowedError, match="no NVIDIA GPU"):
        preflight.check(loaded.recipe, found, folder / "home", folder)


def test_the_target_that_is_deployed_is_required(folder: Path) -> None:
    found = _plan(folder, SERVED)
    assert found.obstacles == ["fp8 cannot be served here: no NVIDIA GPU"]
    assert _made(found, "export") == ["gguf", "fp8"]


def test_a_required_target_takes_the_plan_to_an_accelerator_that_serves_it(folder: Path) -> None:
    assert _plan(folder, kinds=("A100-80GB", "H100")).accelerator == "A100-80GB", "which is cheaper"
    assert _plan(folder, SERVED, kinds=("A100-80GB", "H100")).accelerator == "H100"


def test_no_accelerator_that_serves_it_is_an_obstacle_with_a_way_out(folder: Path) -> None:
    found = _plan(folder, SERVED, kinds=("A100-80GB",))
    assert found.obstacles == ["fp8 cannot be served on A100-80GB:1: fp8 needs Ada or Hopper, not A100-80GB"]
    assert found.refused
    assert found.advice == "quantization bf16 or lora for fp8, or `required: false` to go on without it"


def test_an_environment_that_cannot_be_had_there_is_a_reason_and_an_image_of_the_cluster_a_way(folder: Path) -> None:
    assert _plan(folder, kinds=("MI300X",)).targets[1].refused == "sglang runs on NVIDIA only"
    images = {"sglang": "registry.example/sglang:1"}
    assert _plan(folder, kinds=("MI300X",), images=images).targets[1].refused is None


def test_a_published_image_is_used_once_the_cluster_names_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # a vllm there would do as well
    entry, kinds = "export=[{name: fp8, engine: vllm, quantization: fp8}]", ("MI300X",)
    overrides = (entry, "benchmark.targets=[fp8]", "gates=[]")
    found = _plan(folder, *overrides, kinds=kinds)
    assert "`images: {vllm: vllm/vllm-openai-rocm:v" in found.obstacles[0]
    assert found.advice == "another engine for fp8, or `required: false` to go on without it"
    assert _plan(folder, *overrides, kinds=kinds, images={"vllm": "vllm/vllm-openai-rocm:v0.32.0"}).obstacles == []


def test_an_optional_target_that_does_not_fit_is_left_out(folder: Path) -> None:
    big = "base_model=meta-llama/Llama-3.1-70B"
    wide = "export.0.quantization=F16"
    plan = _plan(folder, big, wide, "export.0.required=false", "train.adapter=qlora", kinds=("H100",))
    gguf = next(target for target in plan.targets if target.name == "gguf")
    assert gguf.left_out
    assert gguf.refused is not None
    assert "needs " in gguf.refused


def test_without_any_target_nothing_is_exported_compared_or_measured(folder: Path) -> None:
    found = _plan(folder, "export.0.engine=sglang", "export.0.quantization=bf16", "export.0.required=false")
    assert [stage.name for stage in found.stages] == ["prepare", "data", "train"]
    assert found.gates == []


def test_every_target_has_its_command_its_files_and_its_environment(folder: Path) -> None:
    gguf, fp8 = _plan(folder).targets
    export = _plan(folder).stage("export")
    assert export is not None
    made = folder / "home" / "stages" / f"export-{export.digest[:16]}"
    assert str(made / "gguf" / "model.gguf") in gguf.command
    assert (gguf.environment, gguf.installed) == (f"llama_cpp {llama_cpp.ENVIRONMENTS[0].version}", False)
    assert fp8.command[:2] == ["sglang-serve", str(made / "fp8")]
    assert (fp8.environment, fp8.installed) == ("sglang 1.2", False)
    assert fp8.variables == {"SGLANG": "yes please"}
    assert fp8.files == {str(folder / "home" / "logs" / "sglang.yaml"): "name: fp8\ntensor_parallel_size: 1\n"}


@pytest.mark.parametrize("engine", ["vllm", "tensorrt_llm", "llama_cpp"])
def test_an_adapter_that_is_not_made_yet_is_planned_on_its_base_and_with_room_for_its_rank(
    folder: Path, engine: str
) -> None:
    entry = f"export=[{{name: tuned, engine: {engine}, quantization: lora}}]"
    plan = _plan(folder, entry, "train.lora_r=24", "benchmark.targets=[tuned]", "gates=[]", kinds=("H100",))
    (tuned,) = plan.targets
    if engine == "vllm":
        assert "--enable-lora" in tuned.command
        assert tuned.command[tuned.command.index("serve") + 1] == "Qwen/Qwen3-8B"
        assert tuned.command[tuned.command.index("--max-lora-rank") + 1] == "32"
        assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in tuned.variables
    elif engine == "tensorrt_llm":
        assert "max_lora_rank: 24" in "".join(tuned.files.values())
    else:
        assert "--lora" in tuned.command


def test_the_deployed_target_is_planned_under_the_name_of_its_release_and_with_its_options(folder: Path) -> None:
    serve = "serve={service: svc, target: fp8, engine_args: {tensor_parallel_size: 2}}"
    fp8 = _plan(folder, serve, kinds=("H100",)).targets[1]
    assert list(fp8.files.values()) == ["name: svc@N\ntensor_parallel_size: 2\n"]


def test_a_benchmark_of_nothing_that_can_run_says_why(folder: Path) -> None:
    plan = _plan(folder, "benchmark.targets=[fp8]")
    with pytest.raises(NotAllowedError, match=r"nothing that .* measures can run here: fp8: no NVIDIA GPU"):
        measuring.up_to_benchmark(plan)


def test_an_engine_is_one_file_of_which_the_planner_need_not_have_figures(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "more").mkdir()
    shutil.copy(FAKES / "sglang.py", folder / "more" / "own_engine.py")
    monkeypatch.setattr(engines, "__path__", [*engines.__path__, str(folder / "more")])
    export = "export=[{name: mine, engine: own_engine, quantization: fp8}]"
    found = _plan(folder, export, "gates=[]", "benchmark.targets=[mine]", kinds=("H100",))
    (target,) = found.targets
    assert (target.refused, found.obstacles) == (None, [])
    assert target.command[0].endswith("sglang-serve")
    assert _made(found, "benchmark") == ["mine"]
    assert "the planner has no figures for an engine 'own_engine'" in found.model_dump_json()
