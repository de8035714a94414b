"""Parity on real parts: a QLoRA adapter, its merge, and GGUF files on llama.cpp's server; and what it must notice."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.engines import _llama_cpp_record as records
from orchestrator.engines import llama_cpp, running
from orchestrator.engines.base import LORA, Launch, Source, Tools
from orchestrator.environments.environment import OWN
from orchestrator.errors import EngineError
from orchestrator.stages import _compared as compared
from orchestrator.stages import export, parity
from orchestrator.stages._compared import Prompt
from orchestrator.stages.base import Outputs
from tests.engines.test_client import ANSWER, engine

CONFIG = parity.Config(prompts=6, near_limit_prompts=2, positions=4, max_new_tokens=24)
HELD_OUT = ("short", "medium")


@pytest.fixture(scope="session")
def measured(bench, exported) -> Outputs:
    return parity.run(CONFIG, bench.context("parity", export=exported))


@pytest.mark.slow
def test_the_merged_model_is_the_trained_one(measured):
    for bucket in HELD_OUT:
        assert measured.metrics[f"merged.{bucket}.kl_mean"] < 2e-4
        assert measured.metrics[f"merged.{bucket}.kl_p99"] < 1e-3
        assert measured.metrics[f"merged.{bucket}.exact_match"] == 1
    assert measured.metrics["reference.stops"] == 1
    assert measured.metrics["merged.score_diff"] == 0
    assert measured.report["comparison"]["merged"] == "the full vocabulary"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "limit"), [("exact", 0.001), ("small", 0.02)])
def test_an_export_answers_like_the_trained_model(measured, name, limit):
    metrics = measured.metrics
    for bucket in HELD_OUT:
        assert metrics[f"{name}.{bucket}.kl_mean"] < limit
        assert metrics[f"{name}.{bucket}.logprob_diff"] < 10 * limit
        assert metrics[f"{name}.{bucket}.exact_match"] == 1
        assert metrics[f"{name}.{bucket}.degenerate"] == 0
    assert metrics[f"{name}.kl_p99"] < 10 * limit
    assert metrics[f"{name}.prompt_tokens_identical"] == 1
    assert metrics[f"{name}.chat_template_identical"] == 1
    assert metrics[f"{name}.stops"] == 1
    assert metrics[f"{name}.refused"] == 0
    assert measured.report["comparison"][name] == "the 100 likeliest tokens and one tail"


@pytest.mark.slow
def test_some_prompts_fill_the_context_of_the_model(measured):
    shortest, longest = measured.report["prompt_tokens"]["near_limit"]
    assert 256 * 0.8 < shortest <= longest <= 256 - CONFIG.max_new_tokens
    assert measured.report["prompts"] == {"short": 2, "medium": 4, "near_limit": 2}


@pytest.mark.slow
def test_every_metric_that_the_plan_knows_is_measured(measured):
    config = parity.Config(contexts={"exact": None, "small": None})
    assert sorted(measured.metrics) == sorted(parity.metric_names(config))
    assert measured.report["unmeasured"] == {}


@pytest.mark.slow
def test_the_report_lists_the_worst_prompts_first(measured):
    worst = measured.report["worst"]["small"]
    assert len(worst) == compared.WORST
    assert [entry["kl_mean"] for entry in worst] == sorted((entry["kl_mean"] for entry in worst), reverse=True)


def asked(bench: Any, made: Path, name: str) -> dict[str, float]:
    """The metrics of an export that went wrong, called `wrong`, against what the trained model answered."""
    reference = json.loads((bench.folder / "parity" / "reference.json").read_text())
    prompts = [Prompt.model_validate(prompt) for prompt in reference["prompts"]]
    target = {"name": "wrong", "engine": "llama_cpp", "quantization": "F32", "path": str(made)}
    found, template = parity._ask(target, prompts, reference["positions"], CONFIG, bench.context(name))
    pairs = list(zip(prompts, found, strict=True))
    same = template.strip() == reference["chat_template"].strip()
    return compared.of_model("wrong", pairs, "exact_match") | compared.of_engine("wrong", pairs, same)


def convert(bench: Any, model: Path, out: Path) -> Path:
    """A model folder as GGUF, past all that the export stage checks."""
    context = bench.context("convert")
    out.mkdir()
    tools = Tools(context.site, out.parent / "log", context.worker, context.say, out.parent / "shared")
    llama_cpp.export(Source(merged=model), "F32", out, tools)
    return out


@pytest.mark.slow
def test_an_export_with_another_template_and_no_end_is_noticed(bench, measured, tmp_path):
    """The base model's GGUF under a foreign chat template stands for an export that went wrong."""
    wrong = tmp_path / "wrong"
    shutil.copytree(bench.folder / "base", wrong)
    (wrong / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] + ' ' }}{% endfor %}")
    metrics = asked(bench, convert(bench, wrong, tmp_path / "export"), "parity-template")
    assert metrics["wrong.chat_template_identical"] == 0
    assert metrics["wrong.prompt_tokens_identical"] == 0
    assert metrics["wrong.exact_match"] == 0
    assert metrics["wrong.stops"] == 0
    assert metrics["wrong.kl_mean"] > 1


@pytest.mark.slow
def test_the_base_in_place_of_the_tuned_model_is_noticed(bench, measured, exported, tmp_path):
    """All of the merged model's folder but its weights."""
    wrong = tmp_path / "wrong"
    shutil.copytree(exported.artifacts["merged"], wrong)
    shutil.copy(bench.folder / "base" / "model.safetensors", wrong)
    metrics = asked(bench, convert(bench, wrong, tmp_path / "export"), "parity-base")
    assert metrics["wrong.prompt_tokens_identical"] == metrics["wrong.chat_template_identical"] == 1
    assert metrics["wrong.exact_match"] == 0
    assert metrics["wrong.medium.kl_mean"] > 1
    assert metrics["wrong.score_diff_high"] < 0


@pytest.mark.slow
def test_a_quantized_model_with_a_corrupted_layer_is_noticed(bench, measured, exported, tmp_path):
    import numpy

    made = tmp_path / "export"
    shutil.copytree(exported.artifacts["small"], made)
    with layer(made) as blocks:
        numpy.random.default_rng(0).shuffle(blocks[:, 2:].T)
    metrics = asked(bench, made, "parity-shuffled")
    assert metrics["wrong.exact_match"] < 1
    assert metrics["wrong.kl_mean"] > 0.1
    assert metrics["wrong.score_diff"] < 0


@contextmanager
def layer(made: Path) -> Iterator[Any]:
    """One matrix of a GGUF in Q8_0, to be changed in place: rows of a scale in 2 bytes and 32 weights."""
    import gguf
    import numpy

    reader = gguf.GGUFReader(made / llama_cpp.MODEL, "r+")
    (tensor,) = [each for each in reader.tensors if each.name == "blk.0.ffn_down.weight"]
    yield tensor.data.view(numpy.uint8).reshape(-1, 34)
    reader.data.flush()


@pytest.mark.slow
def test_an_end_token_that_the_export_has_lost_is_noticed(bench, measured, exported, tmp_path):
    import gguf

    made = tmp_path / "export"
    shutil.copytree(exported.artifacts["exact"], made)
    (made / records.FILE).unlink()  # the engine itself would notice that the file is not the exported one
    reader = gguf.GGUFReader(made / llama_cpp.MODEL, "r+")
    end = reader.fields["tokenizer.ggml.eos_token_id"]
    end.parts[end.data[0]][0] = 2
    tokens = reader.fields["tokenizer.ggml.tokens"]
    tokens.parts[tokens.data[5]][-3] = ord("x")  # <|im_enx|>: llama.cpp takes a token of the right name for an end, too
    reader.data.flush()
    metrics = asked(bench, made, "parity-end")
    assert metrics["wrong.stops"] == 0
    assert metrics["wrong.medium.degenerate"] == 1
    assert metrics["wrong.medium.kl_mean"] < 0.001, "the weights are the right ones"


@pytest.mark.slow
def test_a_model_that_was_never_taught_to_end_is_noticed_in_the_reference(bench, tmp_path):
    from tests import tiny_model

    endless = tiny_model.build_adapter(bench.folder / "base", tmp_path / "endless", ends=False)
    train = Outputs(artifacts={"adapter": str(endless)})
    targets = [export.Target(name="gguf", engine="llama_cpp", quantization="F32")]
    made = export.run(export.Config(targets=targets), bench.context("export-endless", train=train))
    found = parity.run(CONFIG, bench.context("parity-endless", train=train, export=made))
    assert found.metrics["reference.stops"] == found.metrics["gguf.stops"] == 0
    assert found.metrics["gguf.degenerate"] == 0, "it does as it was trained"


class Living:
    """Of a process, all that is asked here."""

    def poll(self) -> None:
        return None


def told(url: str) -> running.Running:
    """A server that answers like llama.cpp's."""
    launch = Launch(Path("m"), "tiny@1", "127.0.0.1", int(url.split(":")[2].split("/")[0]), Path("."), OWN)
    return running.Running(llama_cpp, launch, Living())  # type: ignore[arg-type]


PROMPT = Prompt(
    row=3,
    bucket="near_limit",
    messages=[{"role": "user", "content": "Name it"}],
    own="MIT",
    source="MIT",
    prompt_ids=[1, 2],
    answer_ids=[7, 5],
    ends_at=[3, 3],
    text="MIT",
    ended=True,
    top=[[(7, -0.1), (8, -3.0)]],
)


def test_a_prompt_that_the_engine_refuses_is_no_end_of_the_stage():
    def reply(path: str) -> tuple[int, Any]:
        return 400, {"error": {"message": "the request has 900 tokens, the context 512"}}

    with engine(reply) as url:
        found = parity.compare(told(url), PROMPT, 8)
    assert "the request has 900 tokens, the context 512" in found.refused
    assert found.kl == []


def telling(listed: list[dict[str, Any]]) -> Any:
    """A server that answers rightly and tells these likeliest tokens."""
    bodies = {"apply-template": {"prompt": "Name it"}, "tokenize": {"tokens": [1, 2]}, "completions": ANSWER}
    bodies |= {"completion": {"completion_probabilities": [{"top_logprobs": listed}]}}
    return lambda path: (200, bodies[path.rpartition("/")[2]])


def test_an_engine_that_tells_no_probabilities_is_compared_by_what_it_says():
    with engine(telling([])) as url:
        found = parity.compare(told(url), PROMPT, 8)
    assert (found.kl, found.told, found.answer, found.ended) == ([], 0, "MIT", True)
    pairs = [(PROMPT, found)]
    reasons = parity._unmeasured("trt", "tensorrt_llm", pairs, compared.of_model("trt", pairs, "exact_match"))
    assert reasons["trt.kl_mean"].startswith("tensorrt_llm tells no log-probabilities")
    assert reasons["trt.short.kl_mean"].startswith("there is no short prompt")
    assert parity._comparison("tensorrt_llm", pairs) == "nothing: tensorrt_llm tells no probabilities"


def test_probabilities_that_are_no_numbers_are_an_error_that_says_so():
    with (
        engine(telling([{"id": 7, "logprob": None}])) as url,
        pytest.raises(EngineError, match=r"tiny@1 computes no numbers \(NaN\) at token 1 of its answer to row 3"),
    ):
        parity.compare(told(url), PROMPT, 8)


@pytest.mark.parametrize(
    ("contexts", "longest"),
    [({"a": 2048, "b": 8192}, 8192), ({"a": 2048, "b": None}, None), ({}, None)],
)
def test_the_context_to_fill_is_the_longest_that_an_export_is_served_with(contexts, longest):
    assert parity._longest(contexts.values()) == longest


def test_an_adapter_on_a_base_that_it_was_not_trained_on_is_explained(bench):
    train = Outputs(report={"training": {"method": "qlora"}})
    targets = [{"name": name, "quantization": kind} for name, kind in (("plain", "bf16"), ("tenant", LORA))]
    context = bench.context("notes", train=train, export=Outputs(report={"targets": targets}))
    assert list(parity._notes(context)) == ["tenant"]
    assert parity._notes(bench.context("notes", export=Outputs(report={"targets": targets}))) == {}
