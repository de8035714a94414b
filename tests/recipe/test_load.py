"""The recipe language: layers, overrides, aliases, origins, and every problem at once with its line."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import InputError, RecipeError
from orchestrator.recipe.load import Loaded, load_recipe
from orchestrator.recipe.stages import stage_configs
from orchestrator.validation import origin

BASE = "name: demo\nbase_model: org/model\n"


def _load(tmp_path: Path, text: str, *overrides: str, **files: str) -> Loaded:
    for name, content in files.items():
        (tmp_path / f"{name}.yaml").write_text(content)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(BASE + text)
    return load_recipe(recipe, list(overrides), tmp_path / "home")


def _problems(tmp_path: Path, text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        _load(tmp_path, text)
    return caught.value.message


def test_a_number_in_scientific_notation_is_a_number(tmp_path: Path) -> None:
    loaded = _load(tmp_path, "datasets: [{path: a.jsonl}]\ntrain: {learning_rate: 1e-4}\n")
    assert loaded.recipe.train is not None
    assert loaded.recipe.train.learning_rate == 1e-4


def test_on_is_a_key_of_a_gate_and_not_true(tmp_path: Path) -> None:
    text = "datasets: [{path: a.jsonl}]\ngates:\n- {on: data.leaked, max: 0}\n"
    assert _load(tmp_path, text).recipe.gates[0].on == "data.leaked"


def test_a_gate_reads_a_duration_as_seconds(tmp_path: Path) -> None:
    text = "datasets: [{path: a.jsonl}]\ngates:\n- {on: data.tokens, max: 500ms}\n"
    assert _load(tmp_path, text).recipe.gates[0].max == 0.5


def test_later_layers_win_and_each_value_knows_its_origin(tmp_path: Path) -> None:
    text = "extends: [block.yaml]\ndatasets: [{path: a.jsonl}]\ntrain:\n  lora_r: 8\n"
    loaded = _load(
        tmp_path,
        text,
        "train.num_epochs=2",
        block="train: {lora_r: 4, lora_alpha: 64, num_epochs: 5}\n",
        orch="train: {seed: 3, lora_alpha: 1}\nserve: {service: x, target: y}\n",
    )
    train = loaded.recipe.train
    assert train is not None
    assert (train.lora_r, train.lora_alpha, train.num_epochs, train.seed) == (8, 64, 2, 3)
    assert loaded.recipe.serve is None, "a default must not add a section that the recipe has not"
    where = {name: str(origin(loaded.document, ("train", name))) for name in ("lora_r", "lora_alpha", "num_epochs")}
    assert where["lora_r"].endswith("recipe.yaml:6")
    assert where["lora_alpha"].endswith("block.yaml:1")
    assert where["num_epochs"] == "command line (train.num_epochs=2)"


def test_spellings_of_other_tools_are_accepted(tmp_path: Path) -> None:
    text = "datasets: [{path: a.jsonl}]\ntrain: {num_train_epochs: 4, r: 2, cutoff_len: 99}\n"
    train = _load(tmp_path, text).recipe.train
    assert train is not None
    assert (train.num_epochs, train.lora_r, train.sequence_len) == (4, 2, 99)


def test_two_spellings_of_one_key_are_a_problem(tmp_path: Path) -> None:
    message = _problems(tmp_path, "datasets: [{path: a.jsonl}]\ntrain: {r: 2, lora_r: 4}\n")
    assert "recipe.yaml:4: 'r' is another spelling of 'lora_r', which is set too" in message


def test_every_problem_is_listed_with_its_line(tmp_path: Path) -> None:
    text = """\
name: again
datasets:
  - {path: a.jsonl, typ: chat}
train:
  learning_rat: 1e-4
  lora_r: many
export:
  - {name: gguf, engine: lama_cpp, quantization: Q8_0}
"""
    message = _problems(tmp_path, text)
    assert "recipe.yaml:3: duplicate key 'name', first on line 1" in message
    assert "recipe.yaml:5: unknown key 'datasets.0.typ'; did you mean 'type'?" in message
    assert "recipe.yaml:7: unknown key 'train.learning_rat'; did you mean 'learning_rate'?" in message
    assert "recipe.yaml:8: train.lora_r: input should be a valid integer" in message
    assert message.startswith("4 problems in ")


def test_contradictions_between_sections_are_listed_with_their_line(tmp_path: Path) -> None:
    text = """\
export:
  - {name: gguf, engine: lama_cpp, quantization: Q8_0}
  - {name: gguf, engine: llama_cpp, quantization: Q8}
serve: {service: svc, target: guf, engine_args: {n_ctxx: 1}}
gates:
  - {on: evaluat.exact_match, min: 1}
  - {on: export.bytes}
"""
    message = _problems(tmp_path, text)
    assert "recipe.yaml:4: export.0.engine: unknown engine 'lama_cpp'; did you mean 'llama_cpp'?" in message
    assert "recipe.yaml:5: export.1.name: two exports are named 'gguf'" in message
    assert "recipe.yaml:5: export.1.quantization:" in message
    assert "recipe.yaml:6: serve.target: no export 'guf'; did you mean 'gguf'?" in message
    assert "recipe.yaml:8: gates.0.on: this recipe has no stage 'evaluat'" in message
    assert "recipe.yaml:9: gates.1: a gate needs min or max" in message


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (
            "{adapter: qlora, peft_init_lora_weights: pissa}",
            "pissa is taken from the base's weights, which adapter qlora",
        ),
        (
            "{adapter: dora, init_lora_weights: olora}",
            "cannot be saved as a plain adapter together with the magnitudes",
        ),
        (
            "{adapter: lora, peft_init_lora_weights: pissa, modules_to_save: [lm_head]}",
            "cannot be saved as a plain adapter together with lora_modules_to_save",
        ),
        ("{adapter: full, use_rslora: true}", "train.peft_use_rslora: means nothing with adapter full"),
    ],
)
def test_options_of_an_adapter_that_do_not_go_together_are_named(tmp_path: Path, train: str, said: str) -> None:
    message = _problems(tmp_path, f"datasets: [{{path: a.jsonl}}]\ntrain: {train}\n")
    assert message.startswith("1 problem in ")
    assert said in message


def test_an_unknown_quantization_names_the_nearest(tmp_path: Path) -> None:
    message = _problems(tmp_path, "export: [{name: gguf, engine: llama_cpp, quantization: Q80}]\n")
    assert "recipe.yaml:3: export.0.quantization: unknown quantization 'Q80'; did you mean 'Q8_0'?" in message
    message = _problems(tmp_path, "export: [{name: hf, engine: transformers, quantization: Q8_0}]\n")
    assert "transformers does not serve quantization 'Q8_0'" in message
    assert "; it is one of llama_cpp" in message


def test_a_quantization_may_be_written_as_its_engine_knows_it(tmp_path: Path) -> None:
    text = "datasets: [{path: a.jsonl}]\ntrain: {}\nexport: [{name: int8, engine: vllm, quantization: w8a8}]\n"
    loaded = _load(tmp_path, text)
    assert loaded.recipe.export[0].quantization == "w8a8"


def test_a_quantization_is_written_as_the_engine_writes_it(tmp_path: Path) -> None:
    text = "datasets: [{path: a.jsonl}]\ntrain: {adapter: lora}\n"
    text += "export:\n- {name: a, engine: llama_cpp, quantization: q8_0}\n"
    text += "- {name: b, engine: tensorrt_llm, quantization: fp8}\n"
    assert [target.quantization for target in _load(tmp_path, text).recipe.export] == ["Q8_0", "FP8"]


def test_a_misspelt_engine_option_names_the_nearest(tmp_path: Path) -> None:
    text = """\
export: [{name: gguf, engine: llama_cpp, quantization: Q8_0}]
serve: {service: svc, target: gguf, engine_args: {n_ctxx: 1}}
"""
    message = _problems(tmp_path, text)
    assert "recipe.yaml:4: serve.engine_args.n_ctxx: unknown option of llama_cpp; did you mean 'n_ctx'?" in message


@pytest.mark.parametrize("section", ["env: [HF_TOKEN]"])
def test_a_section_of_later_work_is_rejected_by_name(tmp_path: Path, section: str) -> None:
    name = section.split(":")[0]
    assert f"recipe.yaml:3: {name}: this is not available yet" in _problems(tmp_path, section + "\n")


def test_limits_and_the_use_of_a_model_are_read_with_their_units(tmp_path: Path) -> None:
    text = """\
compliance: {use: commercial, principal_place_of_business: de, monthly_active_users: 120k}
budget: {max_cost_usd: $40, max_duration: 6h}
resources: {accelerators: any, prefer: time}
"""
    found = _load(tmp_path, text).recipe
    assert found.compliance is not None
    assert (found.compliance.principal_place_of_business, found.compliance.monthly_active_users) == ("DE", 120_000)
    assert found.budget is not None
    assert (found.budget.max_cost_usd, found.budget.max_duration) == (40, 6 * 3600)
    assert found.resources.any
    assert found.resources.choices() == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("budget: {max_cost_usd: -40}", "recipe.yaml:3: budget.max_cost_usd: -40 is not usd"),
        ("budget: {max_cost: 40}", "unknown key 'budget.max_cost'; did you mean 'max_cost_usd'?"),
        ("budget: {max_duration: soon}", "budget.max_duration: 'soon' is not seconds"),
        ("compliance: {usage: research}", "unknown key 'compliance.usage'; did you mean 'use'?"),
        ("compliance: {use: comercial}", "compliance.use: input should be"),
        ("compliance: {principal_place_of_business: Germany}", "'Germany' is not a country"),
        ("resources: {accelerators: [H100]}", "KIND:COUNT, such as H100:1, or any; found 'H100'"),
        ("resources: {prefer: cheap}", "resources.prefer: input should be 'cost' or 'time'"),
    ],
)
def test_limits_and_uses_that_cannot_be_read_are_named(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in _problems(tmp_path, text + "\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1,\n", "not YAML"),
        ("- a\n- b\n", "a mapping of keys is needed"),
    ],
)
def test_a_text_that_is_no_recipe_is_one_clear_error(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(InputError, match=expected):
        load_recipe(tmp_path / "bad.yaml", [], tmp_path)


def test_a_missing_recipe_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_text(BASE)
    with pytest.raises(InputError, match=r"no file .*quikstart.yaml") as caught:
        load_recipe(tmp_path / "quikstart.yaml", [], tmp_path)
    assert "did you mean 'quickstart.yaml'?" in str(caught.value)


def test_a_recipe_that_extends_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="extends itself"):
        _load(tmp_path, "extends: [recipe.yaml]\n")


@pytest.mark.parametrize("override", ["train.lora_r", "datasets.7.path=x", "=3"])
def test_an_override_that_makes_no_sense_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(InputError, match="override"):
        _load(tmp_path, "datasets: [{path: a.jsonl}]\ntrain: {}\n", override)


ROWS = "datasets: [{path: a.jsonl}]\n"
TEST_ROWS = ROWS + "test_datasets: [{path: b.jsonl}]\n"
EXPORT = "export: [{name: gguf, engine: llama_cpp, quantization: Q8_0}]\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("test_datasets: [{path: b.jsonl}]\n", "recipe.yaml:3: test_datasets: needs a 'datasets' section"),
        (TEST_ROWS + "evaluate: [{task: exact_match}]\n", "recipe.yaml:5: evaluate: needs a 'train' section"),
        (ROWS + EXPORT, "recipe.yaml:4: export: needs a 'train' section"),
        (
            ROWS + "train: {}\nbenchmark: {}\n",
            "recipe.yaml:5: benchmark: has nothing to measure: name servers, or export a model",
        ),
        (
            TEST_ROWS + "train: {}\nevaluate: [{task: perplexity}, {task: perplexity, limit: 3}]\n",
            "recipe.yaml:6: evaluate.1.task: perplexity is given more than once",
        ),
        (
            ROWS + "train: {}\nexport: [{name: merged, engine: llama_cpp, quantization: Q8_0}]\n",
            "recipe.yaml:5: export.0.name: the name 'merged' is taken by the merged model",
        ),
    ],
)
def test_a_section_that_could_only_fail_later_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    message = _problems(tmp_path, text)
    assert expected in message
    assert message.startswith("1 problem in ")


WHOLE = (
    TEST_ROWS
    + "train: {}\nevaluate: [{task: exact_match}]\n"
    + EXPORT
    + ("serve: {service: svc, target: gguf}\nbenchmark: {}\n")
)


@pytest.mark.parametrize(
    ("on", "expected"),
    [
        ("prepare.seconds", "prepare measures nothing that a gate could judge"),
        ("deploy.seconds", "deploy measures nothing that a gate could judge"),
        ("evaluate.exact_macth", "evaluate measures no 'exact_macth'; did you mean 'exact_match'?"),
        ("parity.gguf.kl_men", "parity measures no 'gguf.kl_men'; did you mean 'gguf.kl_mean'?"),
        (
            "parity.gguf.near_limt.kl_p99",
            "parity measures no 'gguf.near_limt.kl_p99'; did you mean 'gguf.near_limit.kl_p99'?",
        ),
        ("parity.ggfu.kl_mean", "parity has no target 'ggfu'; did you mean 'gguf'? (known: reference, merged, gguf)"),
        ("parity.merged.refused", "parity measures no 'merged.refused'"),
        ("benchmark.gguf.c8.ttft_95", "benchmark measures no 'gguf.c8.ttft_95'; did you mean 'gguf.c8.ttft_p95'?"),
    ],
)
def test_a_gate_on_what_is_never_measured_names_the_nearest(tmp_path: Path, on: str, expected: str) -> None:
    assert f"gates.0.on: {expected}" in _problems(tmp_path, WHOLE + f"gates: [{{on: {on}, max: 1}}]\n")


@pytest.mark.parametrize(
    "on", ["benchmark.gguf.c8.ttft_p95", "benchmark.gguf.errors", "parity.merged.kl_p99", "parity.reference.stops"]
)
def test_a_gate_on_what_is_measured_loads(tmp_path: Path, on: str) -> None:
    assert _load(tmp_path, WHOLE + f"gates: [{{on: {on}, max: 2GB}}]\n").recipe.gates[0].max == 2e9


def test_a_limit_that_is_no_quantity_is_refused(tmp_path: Path) -> None:
    message = _problems(tmp_path, ROWS + "gates: [{on: data.tokens, max: 2 apples}]\n")
    assert "gates.0.max: '2 apples' is no number, duration or size" in message


SERVER = "{name: mine, url: http://127.0.0.1:8000/v1}"


def _only_benchmark(tmp_path: Path, section: str) -> Loaded:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: demo\nbenchmark:\n{section}\n")
    return load_recipe(recipe, [], tmp_path / "home")


def test_a_recipe_with_only_a_benchmark_of_servers_needs_no_model(tmp_path: Path) -> None:
    recipe = _only_benchmark(tmp_path, f"  servers: [{SERVER}]\n  concurrency: [4]\n").recipe
    configs = stage_configs(recipe)
    assert list(configs) == ["benchmark"]
    assert configs["benchmark"].model_dump()["targets"] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: demo\n" + ROWS + "train: {}\n", "base_model: is missing; datasets, train start from it"),
        ("name: demo\n", "base_model: is missing; only a recipe that just benchmarks servers has none"),
        ("name: demo\nbenchmark: {}\n", "recipe.yaml:2: benchmark: has nothing to measure"),
    ],
)
def test_a_recipe_without_a_model_says_what_it_lacks(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "recipe.yaml", [], tmp_path / "home")
    assert expected in caught.value.message


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (f"  servers: [{SERVER}, {SERVER}]", "3: benchmark.servers.1.name: two targets are named 'mine'"),
        (f"  targets: [fp8]\n  servers: [{SERVER}]", "3: benchmark.targets.0: no export 'fp8'"),
        (f"  servers: [{SERVER}]\n  engine_args: {{x: {{n_ctx: 1}}}}", "4: benchmark.engine_args.x: no export 'x'"),
        (
            "  servers: [{name: a, url: http://h/v1, api_key: sk-123}]",
            "3: benchmark.servers.0.api_key: a key is named and never written",
        ),
        ("  servers: [{name: a, url: h:80}]", "3: benchmark.servers.0.url: a server's address begins with http"),
        ("  slo: {ttft: 2s, e2e: 1s}", "3: benchmark.slo: ttft may take 2 s, but the whole request (e2e) only 1 s"),
        ("  slo: {ttft: 1s, share: 99}", "benchmark.slo.share: a share of the requests lies above 0 and up to 1"),
        ("  sweep: auto\n  concurrency: [1]", "benchmark: sweep: auto chooses the loads itself"),
        ("  concurency: [1]", "3: unknown key 'benchmark.concurency'; did you mean 'concurrency'?"),
    ],
)
def test_a_benchmark_that_contradicts_itself_is_refused_with_its_line(
    tmp_path: Path, section: str, expected: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        _only_benchmark(tmp_path, section)
    assert expected in caught.value.message


MEASURED = (
    ROWS
    + "train: {}\nexport:\n- {name: a, engine: llama_cpp, quantization: Q8_0}\n"
    + "- {name: b, engine: llama_cpp, quantization: F16}\n"
)


def test_a_benchmark_measures_what_is_deployed_or_every_export(tmp_path: Path) -> None:
    def config(text: str) -> dict[str, Any]:
        return stage_configs(_load(tmp_path, MEASURED + text).recipe)["benchmark"].model_dump()

    assert config("benchmark: {}\n")["targets"] == ["a", "b"]
    assert config("benchmark: {}\n")["deployed"] is None
    serve = "serve: {service: svc, target: b, engine_args: {n_ctx: 4096}}\n"
    assert (config(serve + "benchmark: {}\n")["targets"], config(serve + "benchmark: {}\n")["deployed"]) == (["b"], "b")
    both = config(serve + "benchmark: {targets: [a, b]}\n")
    assert both["engine_args"] == {"a": {"n_ctx": 4096}, "b": {"n_ctx": 4096}}, "compared on the same options"
    own = config(serve + "benchmark: {targets: [a, b], engine_args: {a: {parallel: 8}}}\n")
    assert own["engine_args"]["a"] == {"parallel": 8}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("{a: {n_ctxx: 1}}", "benchmark.engine_args.a.n_ctxx: unknown option of llama_cpp; did you mean 'n_ctx'?"),
        ("{b: {n_ctx: 512}}", "benchmark.engine_args.b: b is deployed, and runs with the engine_args of serve"),
    ],
)
def test_engine_options_of_a_benchmark_are_checked(tmp_path: Path, arguments: str, expected: str) -> None:
    text = MEASURED + f"serve: {{service: svc, target: b}}\nbenchmark: {{targets: [a, b], engine_args: {arguments}}}\n"
    assert expected in _problems(tmp_path, text)
