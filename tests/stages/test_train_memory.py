"""An accelerator whose memory runs out: fewer rows at a time, the same rows in a step."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.controller.execute import run_worker
from orchestrator.environments.site import Site
from orchestrator.errors import NotAllowedError, WorkerDiedError
from orchestrator.stages import train
from orchestrator.stages.base import Context, Outputs
from orchestrator.stages.train import Batch

DONE = {"artifacts": {}, "metrics": {}, "report": {}}
FULL = WorkerDiedError("the worker train died: it ran out of GPU memory", cause="gpu_memory")
Worker = Callable[[Mapping[str, Any]], dict[str, Any]]


def _context(folder: Path, worker: Worker, events: list[tuple[str, dict[str, Any]]]) -> Context:
    made = {"prepare": {"base_model": str(folder / "base")}}
    made["data"] = {"train": str(folder / "tokens"), "train_rows": str(folder / "rows")}
    return Context(
        home=folder, run="r1", digest="d", cwd=folder, directory=folder, site=Site(folder),
        inputs={stage: Outputs(artifacts=artifacts) for stage, artifacts in made.items()},
        emit=lambda kind, **data: events.append((kind, data)),
        worker=lambda name, request, python=None: worker(request),
    )  # fmt: skip


def _fits(most: int, tried: list[tuple[int, int]]) -> Worker:
    """An accelerator that holds so many rows."""

    def worker(request: Mapping[str, Any]) -> dict[str, Any]:
        size = request["config"]["micro_batch_size"]
        tried.append((size, request["config"]["gradient_accumulation_steps"]))
        if size > most:
            raise FULL
        return DONE

    return worker


def test_a_smaller_batch_divides_the_rows_of_a_step_and_changes_no_more() -> None:
    assert Batch(8, 1).smaller() == Batch(4, 2, 1)
    assert Batch(6, 2).smaller() == Batch(3, 4, 1)
    assert Batch(3, 2).smaller() == Batch(1, 6, 1)
    assert Batch(1, 6).smaller() is None
    assert Batch(2, 4, 2).smaller() is None


def test_training_goes_on_with_half_the_rows_at_a_time_and_the_next_attempt_begins_there(tmp_path: Path) -> None:
    tried: list[tuple[int, int]] = []
    events: list[tuple[str, dict[str, Any]]] = []
    config = train.Config(micro_batch_size=8, gradient_accumulation_steps=2)
    outputs = train.run(config, _context(tmp_path, _fits(2, tried), events))
    assert tried == [(8, 2), (4, 4), (2, 8)]
    assert outputs.report["smaller_batch"] == {
        "micro_batch_size": 2, "gradient_accumulation_steps": 8, "halvings": 2
    }  # fmt: skip
    assert [kind for kind, _ in events] == ["smaller_batch"] * 2
    assert "going on with 4 and gradient_accumulation_steps 4" in events[0][1]["message"]
    train.run(config, _context(tmp_path, _fits(2, tried), events))
    assert tried[3:] == [(2, 8)]


def test_what_fits_with_no_batch_fails_with_advice_after_two(tmp_path: Path) -> None:
    tried: list[tuple[int, int]] = []
    with pytest.raises(NotAllowedError, match=r"does not fit .* with micro_batch_size 2: .*GPU memory") as caught:
        train.run(train.Config(micro_batch_size=8), _context(tmp_path, _fits(1, tried), []))
    assert len(tried) == 3
    assert "qlora" in str(caught.value.next_step)


@pytest.mark.slow
def test_from_a_checkpoint_fewer_rows_at_a_time_give_the_same_losses(tmp_path: Path) -> None:
    """To 1e-4: sums of floats in another order, in fp32."""
    pytest.importorskip("torch")
    from tests import tiny_model

    base = tiny_model.build_base(tmp_path / "base")

    def losses(folder: Path, most: int) -> dict[int, float]:
        folder.mkdir()
        (folder / "base").symlink_to(base)
        tiny_model.write_rows(folder / "rows", 10)
        tiny_model.write_tokens(base, folder / "tokens", 10)

        def worker(request: Mapping[str, Any]) -> dict[str, Any]:
            settings, emit = request["config"], lambda kind, **data: None
            if settings["micro_batch_size"] <= most:
                return run_worker("train", request, folder, emit)
            run_worker("train", {**request, "config": {**settings, "max_steps": 3}}, folder, emit)
            raise FULL  # behind a real checkpoint

        config = train.Config(
            adapter="lora", micro_batch_size=4, max_steps=7, sequence_len=96, lr_scheduler="constant", warmup_steps=0
        )
        curve = train.run(config, _context(folder, worker, [])).report["loss_curve"]
        return {step: loss for step, loss, _ in curve}

    disturbed, undisturbed = losses(tmp_path / "small", 2), losses(tmp_path / "large", 4)
    assert list(disturbed) == [1, 2, 3, 4, 5, 6, 7]
    assert disturbed == pytest.approx(undisturbed, abs=1e-4)
