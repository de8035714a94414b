"""Weights in another number format: the same values, rounded."""

import json

import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file  # noqa: E402

from orchestrator.workers import cast  # noqa: E402


def test_floats_are_rounded_and_all_else_stays(tmp_path):
    weights = {"a": torch.tensor([[1.001, 2.0]]), "steps": torch.tensor([3])}
    save_file(weights, tmp_path / "model-1.safetensors", {"format": "pt"})
    index = {"metadata": {"total_size": 16}, "weight_map": dict.fromkeys(weights, "model-1.safetensors")}
    (tmp_path / cast.INDEX).write_text(json.dumps(index))
    out = tmp_path / "out"
    out.mkdir()
    assert cast.work({"model": str(tmp_path), "dtype": "bfloat16", "out": str(out)}) == {"bytes": 12}
    made = load_file(out / "model-1.safetensors")
    assert (made["a"].dtype, made["a"].tolist(), made["steps"].dtype) == (torch.bfloat16, [[1.0, 2.0]], torch.int64)
    assert json.loads((out / cast.INDEX).read_text()) == {**index, "metadata": {"total_size": 12}}
