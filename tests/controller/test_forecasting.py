"""The plan's forecast: what it takes from the catalog, from files and from the store, and what stands in its way."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.clusters.cluster import Cluster, NodePool
from orchestrator.controller import preflight, runs
from orchestrator.controller.planning import make_plan
from orchestrator.errors import InputError, NotAllowedError, RecipeError
from orchestrator.planner.estimate import Estimate, Unknown
from orchestrator.planner.forecast import Acceptance, Forecast, Price
from orchestrator.planner.plan import Plan
from orchestrator.planner.serving.memory import ServingFit
from orchestrator.recipe.load import load_recipe
from orchestrator.store.store import Store
from orchestrator.units import Usd

RECIPE = """\
name: demo
base_model: Qwen/Qwen3-8B
datasets: [{path: rows.jsonl, license: cc-by-4.0}]
train: {adapter: qlora, sequence_len: 2048, sample_packing: true}
export: [{name: gguf, engine: llama_cpp, quantization: Q8_0}]
serve: {service: svc, target: gguf, engine_args: {n_ctx: 8192, parallel: 4}}
benchmark: {concurrency: [1, 16], workload: {synthetic: {input_tokens: 1000, output_tokens: 200}}}
resources: {accelerators: [H100:1, A100-80GB:1, L4:1]}
"""
ROW = {"messages": [{"role": "user", "content": "Which licence? " * 20}, {"role": "assistant", "content": "MIT"}]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text((json.dumps(ROW) + "\n") * 1000)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def _cluster(*kinds: str, count: int = 8, usd: float | None = None) -> Cluster:
    price = None if usd is None else Usd(usd)
    pools = [NodePool(cpus=8, accelerator=kind, accelerators=count, usd_per_hour=price) for kind in kinds]
    return Cluster(name="lab", nodes=pools or [NodePool(cpus=2)])


def _plan(folder: Path, cluster: Cluster, *overrides: str, **more: Any) -> Plan:
    store = Store(folder / "home")
    return make_plan(load_recipe(folder / "recipe.yaml", list(overrides), store.home), cluster, store, folder, **more)


def _forecast(plan: Plan) -> Forecast:
    assert plan.forecast is not None
    return plan.forecast


def test_the_plan_takes_the_cheapest_accelerator_that_fits_and_that_the_cluster_has(folder: Path) -> None:
    both = _cluster("H100", "A100-80GB")
    cheapest = _plan(folder, both)
    fastest = _plan(folder, both, "resources.prefer=time")
    assert fastest.accelerator == "H100"
    chosen = [layout for layout in _forecast(cheapest).layouts if layout.chosen]
    assert {layout.accelerator for layout in chosen} == {cheapest.accelerator}
    assert {layout.purpose for layout in chosen} == {"train", "gguf"}
    order = [one.slot for one in _forecast(cheapest).layouts if one.purpose == "train" and one.available]
    assert order[0] == f"{cheapest.accelerator}:1"


def test_modules_that_are_trained_as_a_whole_are_counted(folder: Path) -> None:
    def trained(*overrides: str) -> float:
        train = _forecast(_plan(folder, _cluster("H100"), "train.adapter=lora", *overrides)).stage("train")
        assert train is not None
        assert isinstance(train.memory, Estimate)
        return sum(term.amount for term in train.memory.terms if term.name == "adapters")

    ends = 2 * 151936 * 4096  # of Qwen3-8B
    assert trained("train.lora_modules_to_save=[embed_tokens, lm_head]") == trained() + ends * 4


def test_an_accelerator_that_is_too_small_is_passed_over(folder: Path) -> None:
    found = _plan(
        folder, _cluster("L4", "H100"), "train.adapter=lora", "train.sequence_len=8192", "train.micro_batch_size=4"
    )
    assert found.accelerator == "H100"
    refused = [layout for layout in _forecast(found).layouts if layout.refused]
    assert {layout.accelerator for layout in refused} == {"L4"}


def test_what_fits_on_nothing_of_the_cluster_is_an_obstacle_with_a_way_out(folder: Path) -> None:
    found = _plan(folder, _cluster("L4"), "train.adapter=lora", "train.sequence_len=8192", "train.micro_batch_size=4")
    assert found.obstacles[0].startswith("it does not fit: training on L4:1 needs ")
    assert not found.refused, "an H100 would do"
    assert found.advice is not None
    assert "H100:1" in found.advice
    assert "train." in found.advice
    recipe = load_recipe(folder / "recipe.yaml", [], folder / "home").recipe
    with pytest.raises(NotAllowedError, match="does not fit") as caught:
        preflight.check(recipe, found, folder / "home", folder)
    assert caught.value.next_step == found.advice


def test_what_fits_nowhere_is_refused_whatever_the_cluster_has(folder: Path) -> None:
    found = _plan(
        folder, _cluster(), "base_model=Qwen/Qwen3-32B", "train.adapter=full", "resources.accelerators=[L4:1]"
    )
    assert found.refused
    assert len(found.obstacles) == 2


def test_a_laptop_sees_what_it_would_be_on_the_best_accelerator(folder: Path) -> None:
    found = _forecast(_plan(folder, _cluster()))
    assert found.accelerator in ("H100:1", "A100-80GB:1", "L4:1")
    assert isinstance(found.time, Estimate)
    assert isinstance(found.cost, Estimate)
    assert not any(layout.available or layout.chosen for layout in found.layouts)


def test_any_accelerator_is_every_one_with_a_price(folder: Path) -> None:
    found = _forecast(_plan(folder, _cluster("Abacus"), "resources.accelerators=any"))
    slots = {layout.slot for layout in found.layouts}
    assert {"H100:1", "H100:8", "MI300X:4", "Abacus:1"} <= slots


def test_a_forecast_has_memory_time_cost_and_the_targets_loads(folder: Path) -> None:
    found = _forecast(_plan(folder, _cluster("H100")))
    train = found.stage("train")
    assert train is not None
    assert isinstance(train.memory, Estimate)
    assert sum(term.amount for term in train.memory.terms) == pytest.approx(train.memory.value)
    assert isinstance(train.resume, Estimate)
    assert train.resume.value >= train.memory.value
    assert isinstance(train.time, Estimate)
    assert isinstance(found.price, Price)
    assert isinstance(train.cost, Estimate)
    assert train.cost.value == pytest.approx(train.time.value / 3600 * found.price.usd_per_hour)
    (target,) = found.targets
    assert isinstance(target.fit, ServingFit)
    assert target.fit.context == 2048
    assert [(load.concurrency, load.input_tokens, load.output_tokens) for load in target.loads] == [
        (1, 1000, 200),
        (16, 1000, 200),
    ]


def test_a_cluster_s_own_price_counts_more_than_the_market(folder: Path) -> None:
    found = _forecast(_plan(folder, _cluster("H100", usd=16.0)))
    assert isinstance(found.price, Price)
    assert (found.price.usd_per_hour, found.price.term) == (2.0, "cluster")


def test_no_digest_depends_on_a_forecast(folder: Path) -> None:
    def digests(plan: Plan) -> list[str]:
        return [stage.digest for stage in plan.stages]

    plain = _plan(folder, _cluster("H100"))
    limited = _plan(folder, _cluster("H100"), "budget.max_cost_usd=400", "compliance.use=commercial")
    (folder / "catalog").mkdir()
    (folder / "catalog" / "own.yaml").write_text(
        "gpu_prices: [{gpu: h100-sxm, provider: us, usd_per_gpu_hour: 1, date: '2026-11-01', source: us}]\n"
    )
    assert digests(plain) == digests(limited) == digests(_plan(folder, _cluster("H100")))


def test_a_plan_survives_its_own_json_and_one_of_an_older_version_still_loads(folder: Path) -> None:
    found = _plan(folder, _cluster("H100"))
    assert Plan.model_validate_json(found.model_dump_json()) == found
    older = found.model_dump(mode="json")
    for name in ("forecast", "refused", "advice"):
        del older[name]
    assert Plan.model_validate(older).forecast is None


def test_an_unknown_accelerator_is_bad_input_with_the_nearest_names(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(RECIPE.replace("A100-80GB:1", "H10O:1"))
    expected = r"recipe.yaml:8: resources.accelerators.1: the catalog has no GPU 'H10O'"
    with pytest.raises(RecipeError, match=expected) as caught:
        _plan(folder, _cluster("H100"))
    assert "H100" in caught.value.message


def test_an_accelerator_that_only_the_cluster_knows_is_no_error_and_unknown(folder: Path) -> None:
    found = _plan(folder, _cluster("Abacus"), "resources.accelerators=[Abacus:1]")
    assert (found.accelerator, found.obstacles) == ("Abacus", [])
    assert isinstance(_forecast(found).time, Unknown)


def test_a_model_that_nobody_knows_is_unknown_with_the_nearest_names_and_no_obstacle(folder: Path) -> None:
    found = _plan(folder, _cluster("H100"), "base_model=Qwen/Qwen3-8C")
    assert found.obstacles == []
    assert "Qwen/Qwen3-8B" in (_forecast(found).model_source or "")
    train = _forecast(found).stage("train")
    assert train is not None
    assert isinstance(train.memory, Unknown)


def test_a_config_json_that_contradicts_itself_is_bad_input(folder: Path) -> None:
    model = folder / "model"
    model.mkdir()
    config = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 7, "num_hidden_layers": 2}
    (model / "config.json").write_text(json.dumps({**config, "vocab_size": 99, "intermediate_size": 128}))
    with pytest.raises(InputError, match=r"config\.json"):
        _plan(folder, _cluster("H100"), "base_model=./model")


def test_the_licence_of_the_recipe_counts_for_a_local_model(folder: Path) -> None:
    model = folder / "model"
    model.mkdir()
    config = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    (model / "config.json").write_text(json.dumps({**config, "vocab_size": 99, "intermediate_size": 128}))

    def status(*overrides: str) -> str:
        license = _forecast(_plan(folder, _cluster("H100"), "compliance.use=commercial", *overrides)).license
        assert license is not None
        return license.verdict.status

    assert status("base_model={path: ./model}") == "unknown"
    assert status("base_model={path: ./model, license: apache-2.0}") in ("allowed", "allowed with obligations")


def test_a_forbidden_licence_is_an_obstacle_until_somebody_takes_the_risk(folder: Path) -> None:
    text = RECIPE.replace("Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B-Instruct")
    (folder / "recipe.yaml").write_text(text + "compliance: {use: commercial, monthly_active_users: 800_000_000}\n")
    refused = _plan(folder, _cluster("H100"))
    assert refused.refused
    assert "not allowed by licence" in refused.obstacles[0]
    assert "--accept-license-risk" in (refused.advice or "")
    taken = _plan(folder, _cluster("H100"), accepted=Acceptance(who="ada", reason="a grant of our own"))
    assert taken.obstacles == []
    store = Store(folder / "home")
    events = store.events(run=runs.create(store, taken))
    (event,) = [event for event in events if event.kind == "license.risk_accepted"]
    assert (event.who, event.data["message"]) == ("ada", "a grant of our own")


def test_a_budget_that_the_prediction_exceeds_is_an_obstacle_and_one_that_it_may_exceed_a_warning(folder: Path) -> None:
    found = _plan(folder, _cluster("H100"), "budget.max_cost_usd=0.01")
    assert found.refused
    assert "budget.max_cost_usd allows $0.01" in found.obstacles[0]
    cost = _forecast(found).cost
    assert isinstance(cost, Estimate)
    middle = f"budget.max_cost_usd={(cost.value + cost.high) / 2:.2f}"
    may = _plan(folder, _cluster("H100"), middle)
    assert may.obstacles == []
    budget = _forecast(may).budget
    assert budget is not None
    assert "up to" in budget.judgement.warnings[0]


def test_what_the_data_stage_has_counted_replaces_a_guess_by_size(folder: Path) -> None:
    store = Store(folder / "home")
    first = _plan(folder, _cluster("H100"))
    tokens = _forecast(first).train_tokens
    assert isinstance(tokens, Estimate)
    assert tokens.low < tokens.value < tokens.high
    run = runs.create(store, first)
    store.move_run(run, "running")
    claim = store.claim_stage(run, "data")
    metrics = {"train_rows": 1000.0, "tokens": 70_000.0, "tokens_max": 71.0, "tokens_p50": 70.0}
    store.end_stage(claim, "succeeded", outputs={"artifacts": {}, "metrics": metrics, "report": {}})
    counted = _forecast(_plan(folder, _cluster("H100"))).train_tokens
    assert isinstance(counted, Estimate)
    assert (counted.low, counted.value, counted.high) == (70_000, 70_000, 70_000)


def _benchmarked(folder: Path, gpu: str) -> Forecast:
    """After a run whose benchmark measured the export on a GPU."""
    store = Store(folder / "home")
    run = runs.create(store, _plan(folder, _cluster("H100")))
    store.move_run(run, "running")
    claim = store.claim_stage(run, "export")
    store.end_stage(claim, "succeeded", outputs={"artifacts": {}, "metrics": {}, "report": {}})
    spread = {"mean": 0.05}
    summary = {"output_tokens_per_s": 1234.0, "latencies": {"ttft": spread, "tpot": {"mean": 0.01}}}
    cell = {"target": "gguf", "state": "done", "workload": "w", "mode": "closed", "concurrency": 16, "summary": summary}
    hardware = {"gpus": [{"name": gpu, "memory_bytes": 80 * 10**9}]}
    target = {"name": "gguf", "engine": "llama_cpp", "quantization": "Q8_0", "hardware": hardware}
    store.add_benchmark({"id": "b-1", "name": "demo", "created": 1.0, "run": run, "targets": [target], "cells": [cell]})
    return _forecast(_plan(folder, _cluster("H100", usd=16.0)))


def test_a_measurement_of_the_same_export_on_the_same_gpu_replaces_the_prediction(folder: Path) -> None:
    (target,) = _benchmarked(folder, "NVIDIA H100 80GB HBM3").targets
    assert target.loads == []
    (load,) = target.measured
    assert (load.source, load.concurrency, load.throughput) == ("measured by benchmark b-1", 16, 1234.0)
    assert load.usd_per_million == pytest.approx(2.0 / 3600 / 1234 * 1e6)


def test_a_gpu_is_known_by_the_driver_s_name_for_it(folder: Path) -> None:
    store, cluster = Store(folder / "home"), _cluster("RTX-4090")
    run = runs.create(store, _plan(folder, cluster, "resources.accelerators=[RTX-4090:1]"))
    store.move_run(run, "running")
    claim = store.claim_stage(run, "export")
    store.end_stage(claim, "succeeded", outputs={"artifacts": {}, "metrics": {}, "report": {}})
    summary = {"output_tokens_per_s": 99.0, "latencies": {}}
    cell = {"target": "gguf", "state": "done", "workload": "w", "concurrency": 1, "summary": summary}
    hardware = {"gpus": [{"name": "NVIDIA GeForce RTX 4090", "memory_bytes": 24 * 10**9}]}
    target = {"name": "gguf", "engine": "llama_cpp", "quantization": "Q8_0", "hardware": hardware}
    store.add_benchmark({"id": "b-2", "name": "demo", "created": 1.0, "run": run, "targets": [target], "cells": [cell]})
    found = _forecast(_plan(folder, cluster, "resources.accelerators=[RTX-4090:1]"))
    assert [load.throughput for load in found.targets[0].measured] == [99.0]


def test_a_measurement_on_another_gpu_does_not(folder: Path) -> None:
    (target,) = _benchmarked(folder, "NVIDIA L4").targets
    assert target.measured == []
    assert len(target.loads) == 2


def test_several_accelerators_are_held_and_training_uses_one_of_them(folder: Path) -> None:
    found = _plan(folder, _cluster("H100"), "resources.accelerators=[H100:4]")
    train = found.stage("train")
    assert train is not None
    assert train.resources.num_gpus == 1
    assert any("1 of the 4" in warning for warning in _forecast(found).warnings)
    later = [layout for layout in _forecast(found).layouts if not layout.executable]
    assert {layout.parallelism for layout in later} == {"ddp", "fsdp2", "tensor"}
    assert not any(layout.chosen for layout in later)


def test_a_setting_that_only_the_libraries_know_is_unknown_and_does_not_keep_a_run_from_starting(folder: Path) -> None:
    found = _plan(folder, _cluster("H100"), "train.extra={optim: some_new_optimizer}")
    assert found.obstacles == []
    train = _forecast(found).stage("train")
    assert train is not None
    assert isinstance(train.memory, Unknown)
    assert "some_new_optimizer" in train.memory.reason


def test_training_that_has_been_done_takes_no_layout_and_stands_in_no_way(folder: Path) -> None:
    store = Store(folder / "home")
    first = _plan(folder, _cluster("H100"))
    run = runs.create(store, first)
    store.move_run(run, "running")
    claim = store.claim_stage(run, "train")
    store.end_stage(claim, "succeeded", outputs={"artifacts": {}, "metrics": {}, "report": {}})
    found = _plan(folder, _cluster("H100", "L4"))
    assert found.stage("train") == first.stages[2].model_copy(update={"reused_from": run})
    assert {layout.purpose for layout in _forecast(found).layouts} == {"gguf"}
    assert _forecast(found).stage("train") is None


def test_a_stage_that_is_forced_to_run_again_is_predicted(folder: Path) -> None:
    store = Store(folder / "home")
    run = runs.create(store, _plan(folder, _cluster("H100")))
    store.move_run(run, "running")
    for stage in ("data", "train"):
        claim = store.claim_stage(run, stage)
        store.end_stage(claim, "succeeded", outputs={"artifacts": {}, "metrics": {}, "report": {}})
    found = _plan(folder, _cluster("H100"), forced=["train"])
    assert found.stage("data") is not None
    assert [stage.name for stage in found.stages if stage.reused_from] == ["data"]
    assert _forecast(found).stage("train") is not None


def test_other_number_formats_are_tried_and_never_chosen(folder: Path) -> None:
    found = _plan(folder, _cluster("H100"), "base_model=Qwen/Qwen3-32B", "resources.accelerators=[L4:1, H100:1]",
                  "train.sequence_len=512")  # fmt: skip
    tried = [layout for layout in _forecast(found).layouts if layout.alternative]
    assert {layout.quantization for layout in tried} == {"F16", "BF16", "Q6_K", "Q5_K_M", "Q4_K_M"}
    assert not any(layout.chosen for layout in tried)
    wide = _plan(folder, _cluster("L4"), "export=[{name: gguf, engine: llama_cpp, quantization: F16}]",
                 "base_model=Qwen/Qwen3-14B")  # fmt: skip
    (refused,) = [one for one in _forecast(wide).layouts if one.slot == "L4:1" and one.purpose == "gguf"
                  and not one.alternative]  # fmt: skip
    assert refused.refused is not None
    assert (refused.remedy or "").startswith("quantization Q8_0: needs ")
