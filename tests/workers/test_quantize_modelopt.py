"""The real ModelOpt, in its own environment, on a tiny model: what it writes can be read back."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.app import home
from orchestrator.controller.execute import run_worker
from orchestrator.engines import tensorrt_llm
from orchestrator.engines.base import Source, Tools
from orchestrator.environments.site import Site
from orchestrator.errors import InputError
from orchestrator.workers import calibration

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> Source:
    """Stands for a merged model, with the rows that it was trained on."""
    pytest.importorskip("torch")
    from tests import tiny_model

    folder = tmp_path_factory.mktemp("tuned")
    return Source(merged=tiny_model.build_base(folder / "merged"), rows=tiny_model.write_rows(folder / "rows.jsonl"))


def exported(tuned: Source, quantization: str, folder: Path) -> Path:
    def emit(kind: str, /, **data: Any) -> None:
        print(kind, data)

    out = folder / quantization
    out.mkdir()
    tools = Tools(
        site=Site(home()),
        log=folder / "log",
        worker=lambda name, request, python=None: run_worker(name, request, folder, emit, python=python),
        say=print,
        shared=folder,
    )
    tensorrt_llm.export(tuned, quantization, out, tools)
    return out


def tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_fp8_has_scales_that_give_the_weights_back(tuned, tmp_path):
    out = exported(tuned, "FP8", tmp_path)
    said = json.loads((out / "hf_quant_config.json").read_text())["quantization"]
    assert said["quant_algo"] == "FP8"
    assert "lm_head" in said["exclude_modules"]
    written, plain = tensors(out), tensors(tuned.merged)
    for name in ("self_attn.q_proj", "mlp.down_proj"):
        layer = f"model.layers.0.{name}"
        restored = written[f"{layer}.weight"].float() * written[f"{layer}.weight_scale"]
        error = (restored - plain[f"{layer}.weight"]).abs().max() / plain[f"{layer}.weight"].abs().max()
        assert error < 0.05, "e4m3 has 3 bits after the point"
        assert written[f"{layer}.input_scale"] > 0, "calibrated"


def test_int4_awq_packs_two_weights_in_a_byte_and_keeps_what_is_served_beside_them(tuned, tmp_path):
    out = exported(tuned, "INT4_AWQ", tmp_path)
    said = json.loads((out / "hf_quant_config.json").read_text())["quantization"]
    assert (said["quant_algo"], said["group_size"]) == ("W4A16_AWQ", 64)
    packed, plain = (tensors(folder)["model.layers.0.mlp.down_proj.weight"] for folder in (out, tuned.merged))
    assert packed.numel() * 2 == plain.numel()
    assert (out / "chat_template.jinja").read_text() == (tuned.merged / "chat_template.jinja").read_text()
    assert json.loads((out / calibration.FILE).read_text())["rows"] == 6
    assert json.loads((out / "config.json").read_text())["rope_theta"] == 10000.0


def test_a_model_whose_layers_have_no_common_group_is_refused(tuned, tmp_path):
    with pytest.raises(InputError, match=r"no group of 128 weights divides all layers' inputs \(64, 128\)"):
        exported(tuned, "W4A8_AWQ", tmp_path)
