"""The accuracy report reads tables as they were meant, and drops no row in silence."""

import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from orchestrator.errors import InputError
from orchestrator.planner.training.constants import MEMORY, SPEED

ROOT = Path(__file__).parents[2]
FACTS = ROOT.parent / "shared" / "facts" / "calibration"


def script(name: str) -> ModuleType:
    """A module of benchmarks/, under the bare name by which its neighbours import it."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


memory, finetune = script("planner_memory"), script("planner_finetune")
script("planner_serving")
planner = script("planner")
GIB = 2**30
ROW = {
    "id": "x1",
    "source": "somewhere/else@1234",
    "model": "Llama-3.1-8B",
    "method": "qlora",
    "precision": "nf4",
    "batch": "2",
    "seq_len": "2048",
    "gpu": "A100-80GB",
    "value_GiB": "12.5",
    "metric": "peak reserved",
}
FAST = {
    "id": "y1",
    "source": "a/b",
    "model": "Llama-3.1-8B",
    "method": "lora",
    "gpu": "H100-80GB",
    "tokens_per_s": "9000",
}


def written(path: Path, *rows: dict[str, str]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_row_needs_its_model_method_and_number_alone(tmp_path: Path) -> None:
    short = {key: ROW[key] for key in ("id", "source", "model", "method", "value_GiB")}
    result = planner.other(written(tmp_path / "short.csv", short))
    assert result.name == "memory"
    assert result.refused == []
    assert 5 * GIB < result.judged[0].predicted < 40 * GIB


def test_the_table_is_known_by_its_columns(tmp_path: Path) -> None:
    assert planner.other(written(tmp_path / "speed.csv", FAST)).name == "fine-tune speed"
    serving = {"id": "z", "source": "a/b", "model": "x", "engine": "vllm", "ttft_ms": "", "concurrency": "1"}
    assert planner.other(written(tmp_path / "serving.csv", serving)).name == "serving throughput"
    with pytest.raises(SystemExit, match="those of no table"):
        planner.other(written(tmp_path / "nothing.csv", {"colour": "red"}))


def test_a_row_of_an_unknown_model_is_named(tmp_path: Path) -> None:
    result = planner.other(written(tmp_path / "t.csv", ROW, ROW | {"id": "x2", "model": "no-such-model"}))
    assert len(result.judged) == 1
    assert result.refused[0].startswith("x2 no-such-model: the catalog has no model")
    assert any("not predicted: x2" in line for line in planner.report(result))


def test_short_rows_a_missing_source_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,model,method,value_GiB,metric,notes\nq,Llama-3.1-8B,qlora,9\n", encoding="utf-8-sig")
    result = planner.other(path)
    assert (len(result.judged), result.refused) == (1, [])


def test_a_serving_row_that_cannot_be_predicted_is_named_in_one_line(tmp_path: Path) -> None:
    row = {"id": "z", "source": "a/b", "model": "no-such", "engine": "vllm", "gpu": "H100", "ttft_ms": "",
           "input_len": "9", "output_len": "9", "tokens_per_s": "1,000"}  # fmt: skip
    (line,) = planner.other(written(tmp_path / "s.csv", row)).refused
    assert line.startswith("z no-such: unknown: the catalog has no model")
    assert "\n" not in line


def test_a_run_that_was_out_of_memory_is_judged_by_the_verdict_alone(tmp_path: Path) -> None:
    lost = ROW | {"method": "full", "precision": "bf16", "value_GiB": "", "notes": "OOM"}
    small, large = lost | {"gpu": "RTX-4090"}, lost | {"gpu": "H200", "optimizer": "sgd", "seq_len": "64"}
    judged = planner.other(written(tmp_path / "t.csv", small, large)).judged
    assert [one.wrong_verdict for one in judged] == [False, True]


def test_words_of_a_row_become_a_fine_tune() -> None:
    case = memory.case(
        ROW
        | {
            "method": "full",
            "precision": "bf16",
            "optimizer": "PagedAdamW8bit",
            "notes": "optimizer_in_bwd",
            "grad_checkpointing": "False",
            "parallelism": "deepspeed zero-3 + tp2",
            "n_gpu": "8",
            "metric": "nvidia-smi",
        }
    )
    tune = case.tune
    assert (tune.method, tune.optimizer, tune.gradient_release) == ("full", "paged_adamw_8bit", True)
    assert (tune.checkpointing, tune.master_weights, case.measure) == ("none", True, "device")
    assert (tune.sharding.strategy, tune.sharding.data, tune.sharding.tensor) == ("zero3", 4, 2)


@pytest.mark.parametrize(
    ("cells", "meant"),
    [
        ({"method": "QLoRA", "precision": ""}, ("qlora", "nf4-dq")),
        ({"method": "QLoRA", "precision": "bf16"}, ("qlora", "nf4-dq")),  # of the arithmetic
        ({"method": "LoRA (4-bit)", "precision": ""}, ("qlora", "nf4-dq")),
        ({"method": "QDoRA", "precision": ""}, ("dora", "nf4-dq")),
        ({"method": "lora", "precision": "gptq"}, ("qlora", "nf4-dq")),
        ({"method": "lora", "precision": "8-bit"}, ("qlora", "int8")),
        ({"method": "16-bit lora", "precision": ""}, ("lora", "bf16")),
        ({"method": "SFT", "precision": "bf16-mixed"}, ("full", "fp32")),
    ],
)
def test_a_method_s_own_words_say_how_its_weights_are_held(cells: dict[str, str], meant: tuple[str, str]) -> None:
    tune = memory.case(ROW | cells).tune
    assert (tune.method, tune.weights_dtype) == meant


def test_the_rank_and_the_matrices_are_read_where_they_are_written() -> None:
    tune = memory.case(ROW | {"method": "lora (rank 8)", "lora_targets": "q,k,v"}).tune
    assert (tune.lora_r, tune.target_modules) == (8, ["q_proj", "k_proj", "v_proj"])
    assert memory.case(ROW | {"lora_targets": "attention"}).tune.target_modules[-1] == "o_proj"
    assert memory.case(ROW | {"lora_targets": "attention and mlp"}).tune.target_modules == "all-linear"
    assert memory.case(ROW | {"trainable_params": "4.2M"}).tune.trainable_parameters == 4_200_000
    assert memory.case(ROW | {"trainable_params": "0.1%"}).tune.trainable_parameters is None


@pytest.mark.parametrize(
    "written", ["tp4pp2", "TP=4, PP=2", "tensor parallel 4 + pipeline-parallel-size 2", "tp: 4 pp: 2"]
)
def test_a_layout_is_read_however_it_is_written(written: str) -> None:
    row = ROW | {"method": "full", "precision": "bf16", "parallelism": written, "n_gpu": "16"}
    sharding = memory.case(row).tune.sharding
    assert (sharding.tensor, sharding.pipeline, sharding.data) == (4, 2, 2)
    fast = finetune.case(FAST | {"parallelism": written, "n_gpu": "16"}).tune.sharding
    assert (fast.tensor, fast.pipeline, fast.data) == (4, 2, 2)


def test_names_of_configuration_files_are_understood() -> None:
    row = ROW | {"method": "full", "precision": "bf16", "n_gpu": "8"}
    tune = memory.case(row | {"parallelism": "ds_z3_offload"}).tune
    assert (tune.sharding.strategy, tune.offload, tune.master_weights) == ("zero3", "all", True)
    assert memory.case(row | {"parallelism": "ZeRO-2 offload"}).tune.offload == "optimizer"
    assert memory.case(row | {"optimizer": "DeepSpeedCPUAdam"}).tune.offload == "optimizer"
    assert memory.case(row | {"notes": "activation offloading"}).tune.offload == "none"


def test_what_is_no_planned_fine_tune_is_refused_by_name(tmp_path: Path) -> None:
    rows = [ROW | {"method": "GaLore"}, ROW | {"optimizer": "adalomo"}, ROW | {"precision": "2-bit"}]
    result = planner.other(written(tmp_path / "t.csv", *rows))
    assert result.judged == []
    assert [word in line for word, line in zip(("galore", "lomo", "2-bit"), result.refused, strict=True)] == [True] * 3


def test_a_row_without_source_or_number_breaks_nothing(tmp_path: Path) -> None:
    result = planner.other(written(tmp_path / "t.csv", ROW | {"source": ""}, ROW | {"value_GiB": "0"}))
    assert (len(result.judged), len(result.refused)) == (1, 1)
    assert len(planner.other(written(tmp_path / "f.csv", FAST | {"source": ""})).judged) == 1


def test_offloading_that_a_note_speaks_of_costs_speed() -> None:
    row = FAST | {"method": "full", "n_gpu": "8", "parallelism": "fsdp", "model": "Llama-3.1-70B"}
    assert finetune.predict(row | {"notes": "CPU offload"}) < 0.8 * finetune.predict(row)


def test_a_framework_s_column_says_as_much_as_the_source() -> None:
    plain, named = finetune.case(FAST), finetune.case(FAST | {"framework": "Unsloth 2025.3"})
    assert (plain.tune.kernels, named.tune.kernels) == ("eager", "fused")


def test_lengths_follow_what_the_table_says_of_them() -> None:
    usual = memory.case(ROW | {"seq_len_semantics": "cap; actual samples usually <=512 tok"})
    assert usual.tune.row_tokens == 512
    assert memory.case(ROW).tune.row_tokens == 2048


def test_a_total_over_gpus_is_divided() -> None:
    assert memory.measured(ROW | {"metric": "sum over GPUs", "n_gpu": "2"}) == 12.5 * GIB / 2
    assert memory.measured(ROW | {"value_GiB": ""}) is None


def test_speed_is_read_from_whatever_column_has_it() -> None:
    row = FAST | {"tokens_per_s": "", "n_gpu": "4", "seq_len": "1k", "micro_batch": "2"}
    assert finetune.measured(row | {"tokens_per_s_per_gpu": "100"}) == 400
    assert finetune.measured(row | {"samples_per_s": "3"}) == 3 * 1024
    assert finetune.measured(row | {"sec_per_step": "2"}) == 2 * 4 * 1024 / 2
    assert finetune.measured(row) is None


def test_an_unknown_gpu_is_an_error() -> None:
    with pytest.raises(InputError):
        finetune.predict(FAST | {"gpu": "abacus"})


def test_what_a_user_has_today_stands_beside_it() -> None:
    today = memory.baselines(ROW)
    assert today["accelerate estimate-memory"] / today["1.2 x weights"] == pytest.approx(4 / 1.2)
    assert finetune.baselines(FAST)["6 P D at 40 % MFU"] == pytest.approx(0.4 * 989e12 / (6 * 8.03e9), rel=1e-3)


@pytest.mark.skipif(not FACTS.exists(), reason="needs the calibration tables")
def test_shipped_constants_are_near_enough_on_the_calibration_tables() -> None:
    for name, module, shipped, one in (
        ("memory", memory, memory.SHIPPED, planner._memory),
        ("fine-tune speed", finetune, SPEED, planner._speed),
    ):
        table = module.rows(FACTS / module.TABLE)
        found = planner.summary(planner.judge(name, table, lambda _, kept=shipped: kept, one).judged)
        median, tail = planner.TARGETS[name]
        assert found["median"] <= median
        assert tail is None or found["p90"] <= tail
        assert found["rows"] >= 0.99 * len(table)


@pytest.mark.skipif(not FACTS.exists(), reason="needs the calibration tables")
@pytest.mark.slow
def test_the_shipped_constants_are_those_that_the_script_fits() -> None:
    fitted = memory.fit(memory.rows(FACTS / memory.TABLE))
    assert fitted == memory.SHIPPED
    assert fitted.memory == MEMORY
    speed = finetune.fit(finetune.rows(FACTS / finetune.TABLE))
    assert {name: getattr(speed, name) for name in finetune.GRID} == {
        name: pytest.approx(getattr(SPEED, name)) for name in finetune.GRID
    }


def test_torchtune_takes_the_loss_by_chunks_since_its_tutorials() -> None:
    now, then = "pytorch/torchtune@1 README.md", "pytorch/torchtune@1 docs/source/tutorials/qlora_finetune.rst"
    assert [memory.case(ROW | {"source": source}).tune.loss for source in (now, then)] == ["chunked", "full"]
