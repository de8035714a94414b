"""Parity on real parts: a QLoRA adapter, its merge, and GGUF files on llama.cpp's server; and what it must notice."""

import json
import shutil

import pytest

from orchestrator.engines.base import Source, Tools
from orchestrator.stages import _compared as compared
from orchestrator.stages import parity
from orchestrator.stages._compared import Prompt
from orchestrator.stages.base import Outputs

CONFIG = parity.Config(prompts=6, near_limit_prompts=2, positions=4, max_new_tokens=24)


@pytest.fixture(scope="session")
def measured(bench, exported) -> Outputs:
    return parity.run(CONFIG, bench.context("parity", export=exported))


@pytest.mark.slow
def test_the_merged_model_is_the_trained_one(measured):
    assert measured.metrics["merged.kl_mean"] < 1e-4
    assert measured.metrics["merged.kl_p99"] < 1e-3
    assert measured.metrics["merged.exact_match"] == 1
    assert measured.metrics["reference.stops"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "limit"), [("exact", 0.001), ("small", 0.02)])
def test_an_export_answers_like_the_trained_model(measured, name, limit):
    metrics = measured.metrics
    assert metrics[f"{name}.kl_mean"] < limit
    assert metrics[f"{name}.logprob_diff"] < 10 * limit
    assert metrics[f"{name}.exact_match"] == 1
    assert metrics[f"{name}.prompt_tokens_identical"] == 1
    assert metrics[f"{name}.chat_template_identical"] == 1
    assert metrics[f"{name}.stops"] == 1


@pytest.mark.slow
def test_the_report_lists_the_worst_prompts_first(measured):
    worst = measured.report["worst"]["small"]
    assert len(worst) == compared.WORST
    assert [entry["kl_mean"] for entry in worst] == sorted((entry["kl_mean"] for entry in worst), reverse=True)
    assert measured.report["comparison"]["small"] == "the 100 likeliest tokens and one tail"


@pytest.mark.slow
def test_an_export_with_another_template_and_no_end_is_noticed(bench, measured, tmp_path):
    """The base model's GGUF under a foreign chat template stands for an export that went wrong."""
    from orchestrator.engines import llama_cpp

    wrong = tmp_path / "wrong"
    shutil.copytree(bench.folder / "base", wrong)
    (wrong / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] + ' ' }}{% endfor %}")
    made, context = tmp_path / "export", bench.context("parity-wrong")
    made.mkdir()
    llama_cpp.export(
        Source(merged=wrong), "F32", made, Tools(context.site, tmp_path / "log", context.worker, context.say)
    )
    target = {"name": "wrong", "engine": "llama_cpp", "quantization": "F32", "path": str(made)}
    reference = json.loads((bench.folder / "parity" / "reference.json").read_text())
    prompts = [Prompt.model_validate(prompt) for prompt in reference["prompts"]]
    found, template = parity._ask(target, prompts, reference["positions"], CONFIG, context)
    pairs = list(zip(prompts, found, strict=True))
    metrics = compared.of_model("wrong", pairs, "exact_match") | compared.of_engine("wrong", pairs, False)
    assert template != reference["chat_template"]
    assert metrics["wrong.prompt_tokens_identical"] == 0
    assert metrics["wrong.exact_match"] == 0
    assert metrics["wrong.stops"] == 0
    assert metrics["wrong.kl_mean"] > 1
