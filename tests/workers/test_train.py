"""Real training of a tiny model by the real worker: it resumes after kill -9, stops on SIGTERM, names a full disk."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import token_contract
from orchestrator.errors import InputError
from orchestrator.fencing import Writer
from orchestrator.workers import checkpoints
from tests import tiny_model

pytestmark = pytest.mark.slow
pytest.importorskip("torch")

SETTINGS = {
    "adapter": "qlora",
    "lora_r": 4,
    "micro_batch_size": 2,
    "max_steps": 6,
    "save_steps": 2,
    "learning_rate": 1e-3,
    "sequence_len": 96,
}


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    return tiny_model.build_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="session")
def tokens(base, tmp_path_factory) -> Path:
    """Tokenized rows; the answer and its end are trained."""
    from pyarrow import parquet, table
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    columns: dict[str, list[list[int]]] = {"input_ids": [], "assistant_masks": []}
    for row in tiny_model.rows(12):
        prompt = tokenizer.apply_chat_template(row["messages"][:1], tokenize=False, add_generation_prompt=True)
        question = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        answer = tokenizer(row["messages"][1]["content"] + "<|im_end|>", add_special_tokens=False)["input_ids"]
        columns["input_ids"].append(question + answer)
        columns["assistant_masks"].append([0] * len(question) + [1] * len(answer))
    file = tmp_path_factory.mktemp("tokens") / "train.parquet"
    parquet.write_table(table(columns), file)
    return file


def start(
    base: Path, tokens: Path, directory: Path, writer: Writer | None = None, **changes: object
) -> subprocess.Popen[str]:
    from orchestrator.stages.train import Config

    config = Config(**SETTINGS | changes).model_dump()
    rows = tiny_model.write_rows(directory / "rows.jsonl", 12)
    asked = {"config": config, "base_model": str(base), "train": str(tokens), "rows": str(rows)}
    asked |= {"directory": str(directory), "writer": writer.model_dump(mode="json") if writer else None}
    (directory / "request.json").write_text(json.dumps(asked))
    command = [sys.executable, "-m", "orchestrator.workers.train"]
    command += [str(directory / "request.json"), str(directory / "result.json")]
    log = (directory / "log").open("a")
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)


def events(process: subprocess.Popen[str]) -> Iterator[dict]:
    assert process.stdout
    for line in process.stdout:
        yield json.loads(line)


def until_step(process: subprocess.Popen[str], step: int) -> None:
    assert any(event["kind"] == "progress" and event["step"] == step for event in events(process))


def test_after_kill_9_training_goes_on_from_the_newest_complete_checkpoint(base, tokens, tmp_path):
    first = start(base, tokens, tmp_path)
    until_step(first, 3)
    first.kill()
    first.wait()
    half = tmp_path / "checkpoints" / "checkpoint-5"
    half.mkdir(exist_ok=True)
    (half / "trainer_state.json").write_text("{")
    (half / "manifest.json").unlink(missing_ok=True)

    second = start(base, tokens, tmp_path)
    heard = list(events(second))
    assert second.wait() == 0, (tmp_path / "log").read_text()
    steps = [event["step"] for event in heard if event["kind"] == "progress"]
    assert {"kind": "log", "message": f"resuming from checkpoint-{steps[0] - 1}"} in heard
    assert steps[0] > 1
    assert {"kind": "log", "message": "checkpoint-5 is damaged and skipped: it has no manifest.json"} in heard
    assert not half.exists()

    result = json.loads((tmp_path / "result.json").read_text())
    assert [entry[0] for entry in result["report"]["loss_curve"]] == [1, 2, 3, 4, 5, 6]
    assert result["metrics"]["steps"] == 6
    adapter = Path(result["artifacts"]["adapter"])
    names = {"adapter_model.safetensors", "adapter_config.json", "tokenizer.model", "chat_template.jinja"}
    assert names <= {file.name for file in adapter.iterdir()}
    record = json.loads((adapter / "training.json").read_text())
    assert record["method"] == "qlora"
    assert record["base_model"] == str(base)
    assert record["quantization"]["bnb_4bit_quant_type"] == "nf4"
    contract = token_contract.read(adapter)
    assert result["report"]["token_contract"]["digest"] == contract.digest
    assert contract.stop_ids == record["end_of_turn_ids"]
    assert not contract.golden.ended, "six steps teach nobody to stop"
    assert any("does not end its answers" in event.get("message", "") for event in heard)


def test_sigterm_saves_a_checkpoint_and_exits_with_143(base, tokens, tmp_path):
    process = start(base, tokens, tmp_path, max_steps=500, save_steps=1000, adapter="lora")
    until_step(process, 2)
    process.send_signal(signal.SIGTERM)
    list(events(process))
    assert process.wait() == 143
    assert not (tmp_path / "result.json").exists()
    (checkpoint,) = (tmp_path / "checkpoints").glob("checkpoint-*")
    assert checkpoints.damage(checkpoint) is None


def test_an_attempt_that_wakes_up_after_another_has_begun_writes_nothing_and_ends(base, tokens, tmp_path):
    writer = Writer(folder=tmp_path, run="r1", fence=1)
    writer.begin()
    process = start(base, tokens, tmp_path, writer=writer, max_steps=500, save_steps=5, adapter="lora")
    until_step(process, 2)
    process.send_signal(signal.SIGSTOP)
    Writer(folder=tmp_path, run="r1", fence=2).begin()
    before = sorted((tmp_path / "checkpoints").glob("checkpoint-*"))
    process.send_signal(signal.SIGCONT)
    (error,) = [event for event in events(process) if event["kind"] == "error"]
    assert process.wait() == 5
    assert error["type"] == "StaleClaimError"
    assert "attempt 1 of r1 may not write" in error["message"]
    assert sorted((tmp_path / "checkpoints").glob("checkpoint-*")) == before


def test_a_damaged_checkpoint_is_skipped_in_favour_of_the_one_before_it(base, tokens, tmp_path):
    writer = Writer(folder=tmp_path, run="r1", fence=3)
    writer.begin()
    first = start(base, tokens, tmp_path, writer=writer, adapter="lora")
    heard = list(events(first))
    assert first.wait() == 0, (tmp_path / "log").read_text()
    saved = [event for event in heard if event["kind"] == "checkpoint"]
    assert [event["step"] for event in saved] == [2, 4, 6]
    assert {event["fence"] for event in saved} == {3}
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("checkpoint-*"))
    assert kept == ["checkpoint-4", "checkpoint-6"]
    with (Path(saved[-1]["path"]) / "optimizer.pt").open("r+b") as file:
        file.write(b"xx")

    second = start(base, tokens, tmp_path, writer=writer, adapter="lora")
    said = [event.get("message", "") for event in events(second)]
    assert second.wait() == 0
    assert any(text.startswith("checkpoint-6 is damaged and skipped: optimizer.pt") for text in said)
    assert "resuming from checkpoint-4" in said


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small tmpfs needs root on Linux")
@pytest.mark.parametrize("size", ["1m", "3m"])  # full in the adapter's file; full in the optimizer's
def test_a_full_disk_is_one_clear_error(base, tokens, tmp_path, size):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(tmp_path)]).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        process = start(base, tokens, tmp_path, lora_r=128, max_steps=2, save_steps=1)
        errors = [event for event in events(process) if event["kind"] == "error"]
        assert process.wait() == 2
        assert len(errors) == 1
        assert errors[0]["type"] == "InputError"
        assert errors[0]["message"].startswith(f"no space left on the device while writing {tmp_path}")
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_full_fine_tuning_leaves_a_whole_model(base, tokens, tmp_path):
    process = start(base, tokens, tmp_path, adapter="full", max_steps=2, sample_packing=True)
    list(events(process))
    assert process.wait() == 0, (tmp_path / "log").read_text()
    model = Path(json.loads((tmp_path / "result.json").read_text())["artifacts"]["model"])
    names = {"model.safetensors", "config.json", "generation_config.json", "tokenizer.model", "training.json"}
    assert names <= {file.name for file in model.iterdir()}


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"learning_rat": 1}, r"TRL's SFTConfig refuses it: .*learning_rat"),
        ({"max_length": 1}, r"set train\.sequence_len"),
        ({"output_dir": "/x"}, r"train\.extra\.output_dir is set by orch itself"),
    ],
)
def test_extra_is_checked_by_trl_and_may_not_say_what_the_recipe_says(tmp_path, extra, said):
    from orchestrator.stages.train import Config
    from orchestrator.workers.train import pick_device, training_arguments

    with pytest.raises(InputError, match=said):
        training_arguments(Config(extra=extra).model_dump(), tmp_path, *pick_device())


def test_an_adapter_with_nothing_to_train_is_an_error_that_lists_what_there_is(base):
    from transformers import AutoModelForCausalLM

    from orchestrator.stages.train import Config
    from orchestrator.workers.train import adapter_config

    model = AutoModelForCausalLM.from_pretrained(base)
    with pytest.raises(InputError, match="the adapter has nothing to train") as caught:
        adapter_config(Config(lora_target_modules=["c_attn"]).model_dump(), model)
    assert "down_proj, gate_proj" in str(caught.value.next_step)


def test_a_full_disk_is_known_in_every_form_that_libraries_give_it():
    from orchestrator.workers.train import chain, means_disk_full

    assert means_disk_full(OSError(errno.ENOSPC, "x"))
    assert means_disk_full(RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert means_disk_full(RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"))
    assert means_disk_full(
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 1917120 vs 1917012")
    )
    assert not means_disk_full(OSError(errno.EACCES, "denied"))
    outer = RuntimeError("saving failed")
    outer.__cause__ = OSError(errno.EDQUOT, "quota")
    assert [means_disk_full(error) for error in chain(outer)] == [False, True]
