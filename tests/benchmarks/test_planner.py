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
