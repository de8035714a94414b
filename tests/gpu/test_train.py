"""The same worker program on an accelerator (CUDA or ROCm): needs one, and says so where there is none."""

import json
from pathlib import Path

import pytest

from tests import tiny_model

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


@pytest.fixture(autouse=True)
def _accelerator() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no accelerator on this machine")


@pytest.mark.parametrize("adapter", ["qlora", "lora", "full"])
def test_training_happens_on_the_accelerator_and_lowers_the_loss(adapter: str, tmp_path: Path) -> None:
    from orchestrator.controller.execute import run_worker
    from orchestrator.stages.train import Config

    base = tiny_model.build_base(tmp_path / "base")
    tokens = tiny_model.write_tokens(base, tmp_path / "train.parquet", 12)
    config = Config(adapter=adapter, lora_r=4, micro_batch_size=4, max_steps=30, learning_rate=1e-2, sequence_len=96)
    request = {
        "config": config.model_dump(),
        "base_model": str(base),
        "train": str(tokens),
        "rows": str(tiny_model.write_rows(tmp_path / "rows.jsonl", 12)),
        "directory": str(tmp_path),
    }
    result = run_worker("train", request, tmp_path, lambda kind, /, **data: None)
    folder = Path(result["artifacts"].get("adapter") or result["artifacts"]["model"])
    assert json.loads((folder / "training.json").read_text())["device"] == "cuda"
    losses = [loss for _, loss, _ in result["report"]["loss_curve"]]
    assert losses[-1] < losses[0]
