"""Model folders: weights are linked, what may be changed is copied."""

import json

from orchestrator.engines import _checkpoint


def test_weights_are_linked_and_a_copied_file_can_be_changed(tmp_path):
    folder, out = tmp_path / "model", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"w")
    (folder / "config.json").write_text('{"dtype": "float32", "eos_token_id": 5}')
    (folder / "README.md").write_text("")
    _checkpoint.copy(folder, out, lambda file: file.suffix != ".md")
    _checkpoint.change(out / "config.json", dtype="bfloat16")
    assert sorted(file.name for file in out.iterdir()) == ["config.json", "model-00001-of-00002.safetensors"]
    assert (out / "model-00001-of-00002.safetensors").stat().st_nlink == 2
    assert json.loads((out / "config.json").read_text()) == {"dtype": "bfloat16", "eos_token_id": 5}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"


def test_an_adapters_tensors_are_not_a_models_weights(tmp_path):
    names = ["model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors", "tokenizer.json"]
    assert [_checkpoint.is_weights(tmp_path / name) for name in names] == [True, True, False, False]
