"""Kinds of adapters, trained by the real worker: what is saved answers as what was trained, and merges to the same."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import InputError
from tests import tiny_model
from tests.workers.test_merge import logits, relative_error

pytestmark = pytest.mark.slow
pytest.importorskip("torch")
SETTINGS = {
    "lora_r": 4,
    "lora_alpha": 8,
    "micro_batch_size": 2,
    "max_steps": 4,
    "learning_rate": 1e-2,
    "sequence_len": 96,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_model.build_base(tmp_path_factory.mktemp("models") / "base")


def _train(base: Path, directory: Path, **settings: Any) -> Path:
    """The folder of the adapter that the worker leaves."""
    process = _start(base, directory, **settings)
    process.communicate(timeout=300)
    assert process.returncode == 0, (directory / "log").read_text()[-2000:]
    return Path(json.loads((directory / "result.json").read_text())["artifacts"]["adapter"])


def _start(base: Path, directory: Path, **settings: Any) -> subprocess.Popen[str]:
    from orchestrator.stages.train import Config

    request = {
        "config": Config(**SETTINGS | settings).model_dump(),
        "base_model": str(base),
        "train": str(tiny_model.write_tokens(base, directory / "train.parquet", 12)),
        "rows": str(tiny_model.write_rows(directory / "rows.jsonl", 12)),
        "directory": str(directory),
    }
    asked, result = directory / "request.json", directory / "result.json"
    asked.write_text(json.dumps(request))
    command = [sys.executable, "-m", "orchestrator.workers.train", str(asked), str(result)]
    log = (directory / "log").open("a")
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)


KINDS: dict[str, dict[str, Any]] = {
    "dora": {"adapter": "dora"},
    "rslora": {"adapter": "lora", "peft_use_rslora": True},
    "pissa": {"adapter": "lora", "peft_init_lora_weights": "pissa"},
    "olora with rslora": {"adapter": "lora", "peft_init_lora_weights": "olora", "peft_use_rslora": True},
    "head": {"adapter": "qlora", "lora_modules_to_save": ["lm_head"]},
    "both ends": {"adapter": "lora", "lora_modules_to_save": ["embed_tokens", "lm_head"]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_what_the_plan_has_said_and_merges_to_what_was_trained(base, tmp_path, kind) -> None:
    from orchestrator.engines import _adapter
    from orchestrator.stages.train import Config, adapter_of
    from orchestrator.workers import loading, merge

    folder = _train(base, tmp_path, **KINDS[kind])
    planned = adapter_of(Config(**SETTINGS | KINDS[kind]))
    assert planned is not None
    found, more = _adapter.read(folder), {"resized_vocabulary", "target_modules", "alpha"}
    assert found.model_dump(exclude=more) == planned.model_dump(exclude=more)
    assert found.alpha == pytest.approx(planned.alpha)

    training = loading.read_training(folder)
    trained = logits(loading.load_tuned(folder, training))
    assert relative_error(trained, logits(loading.load_base(training))) > 0.01, "it has learned something"
    merged = merge.merged_model(folder, training)
    assert relative_error(logits(merged), trained) < 0.02
    merged.save_pretrained(tmp_path / "merged")
    assert relative_error(logits(loading.load_plain(tmp_path / "merged", "float32")), trained) < 0.02


def test_a_killed_training_goes_on_from_the_same_changed_base(base, tmp_path) -> None:
    """The base is decomposed again when it is loaded again; what was trained until then must still fit it."""
    from orchestrator.workers import loading

    settings = {"adapter": "lora", "peft_init_lora_weights": "pissa", "save_steps": 1}
    answers = []
    for name, kill in (("whole", False), ("killed", True)):
        (tmp_path / name).mkdir()
        if kill:
            process = _start(base, tmp_path / name, **settings)
            assert process.stdout
            assert any('"step": 3' in line for line in process.stdout)
            process.kill()
            process.wait()
        folder = _train(base, tmp_path / name, **settings)
        answers.append(logits(loading.load_tuned(folder, loading.read_training(folder))))
    assert relative_error(*answers) < 1e-4


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora"])
@pytest.mark.parametrize("rslora", [False, True])
def test_an_adapter_that_starts_from_the_base_is_saved_for_the_base_as_it_was(base, tmp_path, start, rslora) -> None:
    import torch
    from peft import PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    from orchestrator.stages.train import Config
    from orchestrator.workers.train import adapter_config, save_difference

    config = Config(lora_r=4, lora_alpha=6, adapter="lora", peft_init_lora_weights=start, peft_use_rslora=rslora)
    model = AutoModelForCausalLM.from_pretrained(base)
    tuned = get_peft_model(model, adapter_config(config.model_dump(), model))
    tuned.save_pretrained(str(tmp_path / "start"))
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    trained = logits(tuned.eval())
    save_difference(tuned, tmp_path / "start", tmp_path / "adapter")
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(tmp_path / "adapter")).eval()
    assert relative_error(logits(plain), trained) < 1e-4


def test_a_module_to_save_must_exist_and_have_all_its_bits(base) -> None:
    import torch

    from orchestrator.stages.train import Config
    from orchestrator.workers.train import adapter_config, load_base

    model, _ = load_base(str(base), "qlora", torch.device("cpu"), torch.float32)
    with pytest.raises(InputError, match="no module 'lm_haed'; did you mean 'lm_head'"):
        adapter_config(Config(lora_modules_to_save=["lm_haed"]).model_dump(), model)
    with pytest.raises(InputError, match="q_proj is in 4 bits"):
        adapter_config(Config(lora_modules_to_save=["q_proj"]).model_dump(), model)
