"""What an adapter's folder tells: settings that PEFT writes, and names of tensors where it writes none."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from orchestrator.engines import _adapter
from orchestrator.engines.base import Adapter
from orchestrator.errors import InputError

PLAIN = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def folder(path: Path, names: tuple[str, ...] = (PLAIN,), **settings: Any) -> Path:
    """An adapter without weights."""
    path.mkdir(exist_ok=True)
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, **settings}
    (path / _adapter.CONFIG).write_text(json.dumps(config))
    header = json.dumps({"__metadata__": {"format": "pt"}, **{name: {} for name in names}}).encode()
    (path / _adapter.WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header)
    return path


def test_a_plain_adapter_is_its_rank_its_scale_and_its_modules(tmp_path):
    assert _adapter.read(folder(tmp_path / "a")) == Adapter(rank=8, alpha=16, target_modules=("q_proj",))


def test_the_largest_rank_of_all_modules_counts(tmp_path):
    found = _adapter.read(folder(tmp_path / "a", rank_pattern={"q_proj": 32}, alpha_pattern={"q_proj": 8}))
    assert (found.rank, found.rank_pattern, found.alpha_pattern) == (32, True, True)


@pytest.mark.parametrize(
    ("name", "resized"),
    [
        ("base_model.model.model.embed_tokens.weight", True),
        ("base_model.model.lm_head.weight", True),
        ("base_model.model.model.embed_tokens.lora_embedding_A", False),
        ("base_model.model.lm_head.lora_B.weight", False),
    ],
)
def test_an_embedding_that_is_there_as_a_whole_tells_of_new_tokens_though_no_setting_does(tmp_path, name, resized):
    assert _adapter.read(folder(tmp_path / "a", (PLAIN, name))).resized_vocabulary is resized


@pytest.mark.parametrize(
    ("how", "changes"),
    [(True, False), ("gaussian", False), ("eva", False), ("pissa_niter_16", True), ("olora", True), ("loftq", True)],
)
def test_some_initializations_change_the_base(how, changes):
    assert _adapter.changes_base(Adapter(rank=8, alpha=8, init_lora_weights=how)) is changes


def test_a_folder_without_settings_or_of_another_method_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"is not an adapter: its adapter_config\.json cannot be read"):
        _adapter.read(tmp_path)
    with pytest.raises(InputError, match="is 'IA3'; LORA can be exported"):
        _adapter.read(folder(tmp_path / "a", peft_type="IA3"))


def test_a_cut_file_of_weights_is_refused(tmp_path):
    adapter = folder(tmp_path / "a")
    (adapter / _adapter.WEIGHTS).write_bytes(b"\x01")
    with pytest.raises(InputError, match="cannot be read"):
        _adapter.read(adapter)
