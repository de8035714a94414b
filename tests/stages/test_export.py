"""Merging and converting with the real parts: peft, bitsandbytes, llama.cpp's converter."""

import json
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from orchestrator import token_contract
from orchestrator.cli.app import home
from orchestrator.engines import llama_cpp, running
from orchestrator.engines.base import Source
from orchestrator.engines.client import Sampling
from orchestrator.environments.site import Site
from orchestrator.errors import InputError
from orchestrator.stages import export


def target(**changes: str) -> export.Target:
    return export.Target(**{"name": "gguf", "engine": "llama_cpp", "quantization": "Q8_0"} | changes)


def test_the_merged_models_name_is_taken():
    with pytest.raises(ValidationError, match="the name 'merged' is taken"):
        target(name="merged")


@pytest.mark.slow
def test_the_merged_folder_has_all_that_a_server_needs(bench, exported):
    merged = Path(exported.artifacts["merged"])
    names = {path.name for path in merged.iterdir()}
    assert {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer.model",
        "chat_template.jinja",
    } <= names
    config, generation = (json.loads((merged / f"{kind}.json").read_text()) for kind in ("config", "generation_config"))
    tokenizer = json.loads((merged / "tokenizer_config.json").read_text())
    assert "quantization_config" not in config
    assert config["eos_token_id"] == generation["eos_token_id"] == 5
    assert tokenizer["add_bos_token"] is False, "the chat has no start token, so the server must not add one"
    assert not list(merged.parent.glob("*.partial"))


@pytest.mark.slow
def test_each_target_is_a_folder_with_a_file_of_its_own_type(exported):
    made = {target["name"]: target for target in exported.report["targets"]}
    assert made["small"]["bytes"] < made["exact"]["bytes"] / 2
    for name, quantization in (("exact", "F32"), ("small", "Q8_0")):
        merged = Source(merged=Path(exported.artifacts["merged"]))
        llama_cpp.check(Path(exported.artifacts[name]), merged, quantization)


@pytest.mark.slow
def test_an_export_has_the_contract_of_its_training_and_its_engine_keeps_it(bench, exported, tmp_path):
    trained = token_contract.read(Path(bench.inputs["train"].artifacts["adapter"]))
    assert exported.report["token_contract"]["digest"] == trained.digest
    assert token_contract.read(Path(exported.artifacts["small"])) == trained
    options, site = llama_cpp.options_for(256), Site(home())
    with running.engine(
        "llama_cpp", Path(exported.artifacts["small"]), options, alias="tiny", directory=tmp_path, site=site
    ) as served:
        golden = trained.golden
        assert served.chat(golden.messages, Sampling(max_tokens=golden.max_tokens)).text.strip() == golden.text


@pytest.mark.slow
def test_a_second_attempt_keeps_what_is_complete(bench, exported):
    config = export.Config(targets=[target(name="small")])
    before = Path(exported.artifacts["small"]).stat().st_mtime_ns
    again = export.run(config, bench.context("export"))
    assert Path(again.artifacts["small"]).stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["template", "marker", "end"])
def test_a_gguf_that_would_not_chat_as_trained_is_refused(exported, tmp_path, damage):
    merged = tmp_path / "merged"
    shutil.copytree(exported.artifacts["merged"], merged)
    if damage == "template":
        (merged / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
        expected = "its chat template is not the model's"
    elif damage == "marker":
        tokenizer = json.loads((merged / "tokenizer.json").read_text())
        tokenizer["added_tokens"].append({"id": 400, "content": "assistant", "special": True})
        (merged / "tokenizer.json").write_text(json.dumps(tokenizer))
        expected = "'assistant' is not a control token"
    else:
        tokenizer = json.loads((merged / "tokenizer_config.json").read_text())
        (merged / "tokenizer_config.json").write_text(json.dumps(tokenizer | {"eos_token": "</s>"}))
        expected = "its end token is '<|im_end|>', not '</s>'"
    with pytest.raises(InputError, match=expected.replace("|", r"\|")):
        llama_cpp.check(Path(exported.artifacts["exact"]), Source(merged=merged), "F32")


@pytest.mark.slow
def test_a_folder_that_is_not_of_the_train_stage_is_named(tmp_path):
    pytest.importorskip("torch")
    from orchestrator.workers import loading

    with pytest.raises(InputError, match=r"has no training\.json"):
        loading.read_training(tmp_path)
