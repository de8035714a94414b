"""A stage that is asked to end, as its actor is asked: from another thread of the process that executes it."""

import os
import time
from pathlib import Path

import pytest

from orchestrator.stages.base import Outputs
from orchestrator.store.store import Store
from orchestrator.testing import answer, serving
from tests.controller.executing import executing, planned

STOPPED_BEFORE = """
import sys
from orchestrator.controller.execute import execute, stop

stop()
print(execute(*sys.argv[1:]))
"""


def test_a_stage_that_is_stopped_ends_its_process_and_begins_no_other(tmp_path: Path) -> None:
    store, begun = Store(tmp_path / "home"), tmp_path / "begun"
    os.mkfifo(begun)
    first = {"prepare": f"sh -c 'echo $$ > {begun}; exec sleep 60' {{out}}", "path": "x"}
    second = {"prepare": "touch {out}/model", "path": "model"}
    run = planned(store, prepare={"base_model": second, "datasets": [first]})
    actor = executing(store, run, "prepare")
    pid = int(begun.read_text())
    assert actor.communicate("stop\n")[0] == "None\n"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert [event.data["message"] for event in store.events(run=run) if event.kind == "log"] == [
        f"dataset.train: {first['prepare']}"
    ]


def test_a_stage_that_is_stopped_before_it_begins_does_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    run = planned(store, prepare={"base_model": {"prepare": "touch {out}/model", "path": "model"}})
    assert executing(store, run, "prepare", STOPPED_BEFORE).communicate()[0] == "None\n"
    assert not list(store.home.glob("prepared/*/model"))


def test_a_stage_that_waits_for_the_same_one_of_another_run_can_be_stopped(tmp_path: Path) -> None:
    store, begun = Store(tmp_path / "home"), tmp_path / "begun"
    os.mkfifo(begun)
    run = planned(store, prepare={"base_model": {"prepare": f"sh -c 'echo > {begun}; sleep 60' {{out}}", "path": "x"}})
    first = executing(store, run, "prepare")
    begun.read_text()
    second = executing(store, run, "prepare")
    assert second.communicate("stop\n")[0] == "None\n"
    assert first.communicate("stop\n")[0] == "None\n"


def test_a_stage_that_measures_a_server_can_be_stopped_while_it_does(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    (tmp_path / "rows").write_text('{"messages": [{"role": "user", "content": "?"}]}\n')
    with serving(answer("a", "b")) as engine:
        servers, load = [{"name": "other", "url": engine.url}], {"concurrency": [1], "num_requests": 1_000_000}
        run = planned(store, data={}, benchmark={"servers": servers, "warmup_duration": 0, **load})
        store.reuse_stage(run, "data", Outputs(artifacts={"test_rows": str(tmp_path / "rows")}).model_dump())
        actor = executing(store, run, "benchmark")
        while not any(event.data.get("requests") for event in store.events(run=run)):
            assert actor.poll() is None
            time.sleep(0.05)
        assert actor.communicate("stop\n")[0] == "None\n"


@pytest.mark.slow
def test_training_that_is_stopped_goes_on_with_the_losses_of_an_undisturbed_run(tmp_path: Path) -> None:
    """Same seeds: equal to 1e-6 on a CPU, whose sums of floats come in the same order each time."""
    pytest.importorskip("torch")
    store, run = Store(tmp_path / "home"), _training(tmp_path)
    actor = executing(store, run, "train")
    while "progress" not in [event.kind for event in store.events(run=run)]:
        assert actor.poll() is None
        time.sleep(0.05)
    assert actor.communicate("stop\n")[0] == "None\n"
    (saved,) = [event.data for event in store.events(run=run) if event.kind == "checkpoint"]
    assert Path(saved["path"]).is_dir()
    assert 0 < saved["step"] < STEPS

    resumed = _losses(store, run)
    assert f"resuming from checkpoint-{saved['step']}" in [e.data.get("message") for e in store.events(run=run)]
    undisturbed = _losses(Store(tmp_path / "other"), _training(tmp_path, "other"))
    assert [step for step, _ in resumed] == list(range(1, STEPS + 1))
    assert dict(resumed) == pytest.approx(dict(undisturbed), abs=1e-6)


@pytest.mark.slow
def test_an_attempt_goes_on_from_what_the_one_before_it_saves_when_its_process_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    store, run = Store(tmp_path / "home"), _training(tmp_path)
    actor = executing(store, run, "train")
    while "progress" not in [event.kind for event in store.events(run=run)]:
        assert actor.poll() is None
        time.sleep(0.05)
    actor.kill()  # its worker has SIGTERM now, and no checkpoint yet
    resumed = _losses(store, run)
    said = [str(event.data.get("message")) for event in store.events(run=run)]
    assert [text for text in said if text.startswith("resuming from checkpoint-")], said
    assert [step for step, _ in resumed] == list(range(1, STEPS + 1))


STEPS = 60


def _training(folder: Path, home: str = "home") -> str:
    """A run whose train stage is next; dropout and the order of rows depend on the random state."""
    from tests import tiny_model

    base = folder / "base"
    if not base.exists():
        tiny_model.build_base(base)
    rows, tokens = tiny_model.write_rows(folder / "rows", 12), tiny_model.write_tokens(base, folder / "tokens", 12)
    store = Store(folder / home)
    settings = {"adapter": "lora", "lora_r": 4, "lora_dropout": 0.1, "micro_batch_size": 2, "max_steps": STEPS}
    run = planned(store, prepare={}, data={}, train=settings | {"save_steps": 1000, "sequence_len": 96})
    made = {"prepare": {"base_model": str(base)}, "data": {"train": str(tokens), "train_rows": str(rows)}}
    for stage, artifacts in made.items():
        store.reuse_stage(run, stage, Outputs(artifacts=artifacts).model_dump())
    return run


def _losses(store: Store, run: str) -> list[tuple[int, float]]:
    import ast

    said, _ = executing(store, run, "train").communicate()
    return [(step, loss) for step, loss, _ in ast.literal_eval(said)["report"]["loss_curve"]]
