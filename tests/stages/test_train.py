"""What can be said about a base model from its file names and headers, before anything is loaded."""

import json
import struct
from pathlib import Path

import pytest
from pydantic import ValidationError

from orchestrator.errors import InputError
from orchestrator.stages import train


def model(folder: Path, **changes: object) -> Path:
    """A model directory with a real safetensors header and no weights."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "tokenizer.json").write_text("{}")
    names = ["model.embed_tokens.weight", "lm_head.weight"]
    names += [f"model.layers.{n}.{m}.weight" for n in range(2) for m in ("self_attn.q_proj", "mlp.up_proj")]
    header = {name: {"dtype": "F32", "shape": [8, 8], "data_offsets": [0, 0]} for name in names}
    header["model.norm.weight"] = {"dtype": "F32", "shape": [8], "data_offsets": [0, 0]}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    return folder


def test_a_whole_model_directory_passes(tmp_path):
    train.check_base_model(model(tmp_path / "m"), train.Config())
    train.check_base_model(tmp_path / "m", train.Config(adapter="lora", lora_target_modules=["q_proj"]))
    train.check_base_model(tmp_path / "m", train.Config(adapter="lora", lora_target_modules=r".*\.(q|v)_proj"))


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("config.json", None, "no config.json"),
        ("config.json", "{", "config.json is not JSON"),
        ("config.json", "{}", "config.json names neither model_type nor architectures"),
        ("model.safetensors", None, "no weights"),
        ("tokenizer.json", None, "no tokenizer (tokenizer.json or tokenizer.model)"),
    ],
)
def test_what_a_directory_lacks_is_said(tmp_path, file, text, said):
    folder = model(tmp_path / "m")
    (folder / file).unlink() if text is None else (folder / file).write_text(text)
    with pytest.raises(InputError) as caught:
        train.check_base_model(folder, train.Config())
    assert f"{folder} is not a model directory: {said}" in str(caught.value)


def test_weights_that_are_quantized_already_are_refused_with_what_to_give_instead(tmp_path):
    folder = model(tmp_path / "m")
    settings = json.loads((folder / "config.json").read_text()) | {"quantization_config": {"quant_method": "awq"}}
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="are quantized already, by awq") as caught:
        train.check_base_model(folder, train.Config())
    assert "the 16-bit model that it was made of" in str(caught.value.next_step)


def test_all_that_is_missing_is_said_at_once(tmp_path):
    with pytest.raises(InputError, match=r"no config\.json; no weights .*; no tokenizer"):
        train.check_base_model(tmp_path, train.Config())


@pytest.mark.parametrize("targets", [["c_attn"], "q_proj", ["lm_head", "embed_tokens"]])
def test_targets_that_match_nothing_are_an_error_that_lists_what_there_is(tmp_path, targets):
    with pytest.raises(InputError, match="nothing to train") as caught:
        train.check_base_model(model(tmp_path / "m"), train.Config(lora_target_modules=targets))
    assert caught.value.next_step == "use all-linear, or some of: q_proj, up_proj"


def test_full_fine_tuning_needs_no_targets(tmp_path):
    train.check_base_model(model(tmp_path / "m"), train.Config(adapter="full", lora_target_modules=["none"]))


def test_a_broken_weights_file_is_named(tmp_path):
    folder = model(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(InputError, match=r"model\.safetensors is not a safetensors file"):
        train.check_base_model(folder, train.Config(lora_target_modules=["q_proj"]))


def test_the_adapter_of_a_configuration_is_what_engines_are_asked_about():
    plain = train.adapter_of(train.Config(adapter="qlora", lora_r=8, lora_alpha=4))
    assert plain is not None
    assert (plain.rank, plain.alpha, plain.use_dora) == (8, 4, False)
    dora = train.adapter_of(train.Config(adapter="dora"))
    assert dora is not None
    assert dora.use_dora
    assert train.adapter_of(train.Config(adapter="full")) is None


def test_an_adapter_that_starts_from_the_base_is_planned_as_it_is_saved():
    found = train.adapter_of(
        train.Config(adapter="lora", lora_r=8, lora_alpha=8, peft_init_lora_weights="pissa_niter_4")
    )
    assert found is not None
    assert (found.rank, found.alpha, found.init_lora_weights) == (16, 16, True)
    rslora = train.Config(adapter="lora", lora_alpha=8, peft_init_lora_weights="olora", peft_use_rslora=True)
    found = train.adapter_of(rslora)
    assert found is not None
    assert (found.alpha, found.use_rslora) == (pytest.approx(8 * 2**0.5), True)


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ("loftq", "loftq leaves a base of its own"),
        ("eva", "needs the activations of the data"),
        (False, "starts with random answers"),
        ("pisa", "did you mean 'pissa'"),
        ("pissa_niter_0", "no way to start is called"),
    ],
)
def test_ways_to_start_that_are_not_offered_say_why(start, said):
    with pytest.raises(ValidationError, match=said):
        train.Config(adapter="lora", peft_init_lora_weights=start)


def test_target_modules_that_are_no_regular_expression_are_refused():
    with pytest.raises(ValidationError, match="is not a regular expression: missing"):
        train.Config(lora_target_modules="((")
