"""Will the targets load what a recipe trains? Said in the plan, with file, line and what would do."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.clusters.cluster import Cluster, NodePool
from orchestrator.controller.planning import make_plan
from orchestrator.errors import RecipeError
from orchestrator.planner.plan import Plan
from orchestrator.recipe.load import load_recipe
from orchestrator.store.store import Store

pytestmark = pytest.mark.usefixtures("fake_engines")
RECIPE = """\
name: demo
base_model: Qwen/Qwen2.5-7B
datasets: [{path: rows.jsonl}]
train: {adapter: lora, lora_r: 32, sequence_len: 2048}
export:
- {name: bf16, engine: sglang, quantization: bf16}
- {name: tuned, engine: sglang, quantization: lora}
serve: {service: svc, target: tuned, engine_args: {max_model_len: 4096}}
benchmark: {targets: [tuned], concurrency: [1]}
resources: {accelerators: ["H100:1"]}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text('{"messages": []}\n')
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def _plan(folder: Path, *overrides: str) -> Plan:
    store, nodes = Store(folder / "home"), [NodePool(cpus=8, accelerator="H100", accelerators=8)]
    loaded = load_recipe(folder / "recipe.yaml", list(overrides), store.home)
    return make_plan(loaded, Cluster(name="lab", nodes=nodes), store, folder)


def _problems(folder: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as refused:
        _plan(folder, *overrides)
    assert "nothing was started" in str(refused.value)
    return refused.value.message


def _warnings(plan: Plan) -> list[str]:
    assert plan.forecast is not None
    return plan.forecast.warnings


def test_a_recipe_whose_targets_load_what_it_trains_plans(folder: Path) -> None:
    found = _plan(folder)
    assert found.obstacles == []
    assert _warnings(found) == []


def test_an_adapter_that_the_engine_refuses_is_a_problem_of_the_recipe(folder: Path) -> None:
    message = _problems(folder, "train.adapter=qlora", "train.adapter=dora")
    assert "recipe.yaml:7: export.1.quantization: it does not load DoRA; export it merged" in message
    assert "export.0" not in message, "merged, nothing of it is left"


def test_full_fine_tuning_leaves_no_adapter_to_serve(folder: Path) -> None:
    assert "full fine-tuning leaves no adapter to serve" in _problems(folder, "train.adapter=full")


def test_a_rank_above_the_limit_that_the_options_set_is_named_with_both(folder: Path) -> None:
    message = _problems(folder, "serve.engine_args.max_lora_rank=16")
    assert "serve.engine_args.max_lora_rank: 16 is less than the rank 32 of the adapter" in message
    assert _plan(folder, "serve.engine_args.max_lora_rank=32").obstacles == []


def test_gpus_that_do_not_divide_the_model_are_named_with_those_that_do(folder: Path) -> None:
    args = "serve.engine_args={tensor_parallel_size: 8}"
    message = _problems(folder, args, "resources.accelerators=[H100:8]")
    assert "28 attention heads of Qwen/Qwen2.5-7B cannot be divided over 8 GPUs; use one of 1, 2, 4" in message


def test_gpus_that_the_options_ask_for_and_the_plan_has_not_are_an_obstacle(folder: Path) -> None:
    found = _plan(folder, "serve.engine_args={tensor_parallel_size: 2}")
    assert found.obstacles == ["tuned cannot be served on H100:1: its engine_args ask for 2 GPUs"]
    assert found.refused
    assert (
        _plan(folder, "serve.engine_args={tensor_parallel_size: 2}", "resources.accelerators=[H100:2]").obstacles == []
    )


def test_the_accelerators_of_the_plan_share_the_model_unless_the_options_say_how_many_do(folder: Path) -> None:
    def shared(*overrides: str) -> list[Any]:
        plan = _plan(folder, "resources.accelerators=[H100:2]", *overrides)
        stages = [stage.config for stage in plan.stages if stage.name in ("deploy", "benchmark")]
        deployed, measured = stages[0]["engine_args"], stages[1]["engine_args"]["tuned"]
        return [args.get("tensor_parallel_size") for args in (deployed, measured)] + [plan.targets[1].files]

    two = shared()
    assert two[:2] == [2, 2]
    assert "tensor_parallel_size: 2" in "".join(two[2].values())
    assert shared("serve.engine_args={tensor_parallel_size: 1}")[:2] == [1, 1]


def test_a_context_beyond_the_model_s_positions_is_named_unless_it_is_told_of_more(folder: Path) -> None:
    long = "serve.engine_args.max_model_len=200000"
    message = _problems(folder, long)
    assert "200000 tokens for one request are more than the 131072 positions of Qwen/Qwen2.5-7B" in message
    assert _plan(folder, long, "serve.engine_args.hf_overrides={max_position_embeddings: 262144}").obstacles == []


def test_a_slot_s_context_counts_as_one_request_s(folder: Path) -> None:
    gguf = "export=[{name: tuned, engine: llama_cpp, quantization: Q8_0}]"
    assert "150000 tokens for one request" in _problems(folder, gguf, "serve.engine_args={n_ctx: 300000, parallel: 2}")
    assert _plan(folder, gguf, "serve.engine_args={n_ctx: 200000, parallel: 2}").obstacles == []


@pytest.mark.parametrize(
    ("lengths", "most"),
    [
        ("{input_tokens: 4000, output_tokens: 200}", 4200),
        ("{input_tokens: {uniform: [10, 5000]}, output_tokens: 1}", 5001),
        ("{input_tokens: {lognormal: {median: 10, sigma: 1, max: 9000}}}", 9128),
    ],
)
def test_requests_that_a_target_cannot_hold_are_named_before_they_are_sent(
    folder: Path, lengths: str, most: int
) -> None:
    message = _problems(folder, f"benchmark.workload={{synthetic: {lengths}}}")
    assert f"requests have up to {most} tokens with their answers, and tuned holds 4096" in message


def test_requests_without_a_bound_and_those_that_fit_pass(folder: Path) -> None:
    for lengths in ("{input_tokens: {lognormal: {median: 10, sigma: 1}}}", "{input_tokens: 3000, output_tokens: 1000}"):
        assert _plan(folder, f"benchmark.workload={{synthetic: {lengths}}}").obstacles == []


def test_packed_rows_that_are_longer_than_the_model_s_positions_are_named(folder: Path) -> None:
    message = _problems(folder, "train.sequence_len=200000", "train.sample_packing=true")
    assert "train.sequence_len: packed rows of 200000 tokens are longer than the 131072 positions" in message


def test_a_target_that_holds_less_than_a_training_row_is_a_warning(folder: Path) -> None:
    found = _plan(folder, "serve.engine_args.max_model_len=1024")
    assert _warnings(found) == ["tuned gives one request 1024 tokens, and training rows may have up to 2048"]


def test_an_adapter_of_4_bit_weights_on_16_bit_ones_is_a_warning(folder: Path) -> None:
    (warning,) = _warnings(_plan(folder, "train.adapter=qlora"))
    assert warning.startswith("tuned: an adapter that was trained on 4-bit weights is served on the 16-bit base")


CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256,
    "max_position_embeddings": 8192,
}  # fmt: skip


def test_a_base_without_a_chat_template_is_named_and_each_place_for_one_is_known(folder: Path) -> None:
    base = folder / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps(CONFIG))
    (base / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    assert f"base_model: the tokenizer in {base} has no chat template" in _problems(folder, "base_model=./base")
    (base / "chat_template.jinja").write_text("{{ messages }}")
    assert _plan(folder, "base_model=./base").obstacles == []
    (base / "chat_template.jinja").unlink()
    (base / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert _plan(folder, "base_model=./base").obstacles == []
