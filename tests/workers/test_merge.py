"""What is merged into what: the merged model must compute what was trained."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    from tests import tiny_model

    return tiny_model.build_base(tmp_path_factory.mktemp("merge") / "base")


def logits(model: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.arange(6, 70).unsqueeze(0)).logits


def relative_error(found: Any, expected: Any) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("method", ["qlora", "lora"])
def test_a_merged_adapter_computes_what_base_and_adapter_did(base, tmp_path, method):
    from orchestrator.workers import loading, merge
    from tests import tiny_model

    adapter = tiny_model.build_adapter(base, tmp_path / "adapter", method)
    training = loading.read_training(adapter)
    merged = merge.merged_model(adapter, training)
    assert not hasattr(merged, "peft_config")
    assert relative_error(logits(merged), logits(loading.load_tuned(adapter, training))) < 0.02


def test_a_qlora_adapter_on_the_base_before_quantization_is_another_model(base, tmp_path):
    """The common recipe, which this project does not follow: why the base is dequantized first."""
    from orchestrator.workers import loading, merge
    from tests import tiny_model

    adapter = tiny_model.build_adapter(base, tmp_path / "adapter", "qlora")
    training = loading.read_training(adapter)
    trained = logits(loading.load_tuned(adapter, training))
    ours = relative_error(logits(merge.merged_model(adapter, training)), trained)
    common = merge.merged_model(adapter, training.model_copy(update={"quantization": None}))
    assert relative_error(logits(common), trained) > 5 * ours


def test_an_adapter_that_is_not_finite_is_refused(base, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    from orchestrator.errors import InputError
    from orchestrator.workers import loading, merge
    from tests import tiny_model

    adapter = tiny_model.build_adapter(base, tmp_path / "adapter", "lora")
    weights = load_file(adapter / "adapter_model.safetensors")
    broken = {name: torch.full_like(weight, float("nan")) for name, weight in weights.items()}
    save_file(broken, adapter / "adapter_model.safetensors")
    with pytest.raises(InputError, match="cannot be merged"):
        merge.merged_model(adapter, loading.read_training(adapter))


def of_another_base(adapter: Path, base: Path, out: Path) -> Path:
    """The adapter, with a record that names another base than the one it was trained on."""
    shutil.copytree(adapter, out)
    record = json.loads((out / "training.json").read_text())
    (out / "training.json").write_text(json.dumps(record | {"base_model": str(base)}))
    return out


def test_an_adapter_on_a_base_of_the_same_shape_and_other_weights_is_refused(base, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    from orchestrator.errors import InputError
    from orchestrator.workers import merge
    from tests import tiny_model

    other = tmp_path / "other"
    shutil.copytree(base, other)
    model = AutoModelForCausalLM.from_pretrained(base)
    torch.nn.init.normal_(model.model.layers[0].mlp.up_proj.weight)
    model.save_pretrained(other)
    adapter = tiny_model.build_adapter(base, tmp_path / "adapter", "lora")
    wrong = of_another_base(adapter, other, tmp_path / "wrong")
    with pytest.raises(InputError, match=r"would answer its golden conversation otherwise .* nats behind") as caught:
        merge.work({"tuned": str(wrong), "out": str(tmp_path / "merged")})
    assert f"{other} must be, unchanged, the base" in str(caught.value.next_step)
    assert not (tmp_path / "merged").exists()


def test_an_adapter_on_a_base_of_another_shape_is_refused(base, tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    from orchestrator.errors import InputError
    from orchestrator.workers import merge
    from tests import tiny_model

    other = tmp_path / "other"
    shutil.copytree(base, other)
    config = AutoConfig.from_pretrained(base)
    config.intermediate_size *= 2
    AutoModelForCausalLM.from_config(config).save_pretrained(other)
    adapter = tiny_model.build_adapter(base, tmp_path / "adapter", "lora")
    wrong = of_another_base(adapter, other, tmp_path / "wrong")
    with pytest.raises(InputError, match=r"does not fit its base .*other: size mismatch for .*_proj"):
        merge.work({"tuned": str(wrong), "out": str(tmp_path / "merged")})
