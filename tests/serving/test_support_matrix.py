"""The table of engines, formats and accelerators, over every engine that there is."""

import pytest

from orchestrator import engines, plugins
from orchestrator.catalog.catalog import load
from orchestrator.engines.base import LORA
from orchestrator.errors import InputError
from orchestrator.planner.serving.formats import weight_format
from orchestrator.planner.serving.servable import refusal
from orchestrator.planner.serving.serving import Serving
from orchestrator.serving.support_matrix import CPU, Cell, Row, grouped, matrix, reasons

CATALOG = load()
GPUS = [CATALOG.gpu(kind) for kind in ("H100", "A100-80GB", "RTX-4090", "B200", "MI300X")]


def _known(quantization: str) -> bool:
    try:
        weight_format(quantization)
    except InputError:
        return quantization == LORA
    return True


@pytest.mark.parametrize("engine", plugins.names(engines))
def test_an_engine_and_the_planner_agree_on_what_is_served_on_every_gpu(engine: str) -> None:
    supports = plugins.load(engines, engine).supports
    names = [name for name in plugins.load(engines, engine).QUANTIZATIONS if _known(name)]
    for gpu in CATALOG.gpus:
        served = {name: Serving(engine=engine, quantization="bf16" if name == LORA else name) for name in names}
        planned = {name: refusal(one, gpu) is None for name, one in served.items()}
        assert {name: supports(name, gpu).ok for name in names} == planned, gpu.id


def test_every_cell_has_a_way_and_those_that_are_not_served_a_reason() -> None:
    rows = matrix(plugins.names(engines), [*GPUS, None])
    assert {row.engine for row in rows} == set(plugins.names(engines))
    cells = [cell for row in rows for cell in row.cells.values()]
    assert all(bool(cell.reason) == (cell.way in ("no", "emulated")) for cell in cells)
    assert list(rows[0].cells) == ["H100", "A100-80GB", "RTX-4090", "B200", "MI300X", CPU]


def _row(name: str, ways: str, reason: str = "") -> Row:
    way = {"n": "native", "w": "weight-only", "x": "no"}
    cells = {
        kind: Cell(way=way[mark], reason=reason if mark == "x" else "") for kind, mark in zip("AB", ways, strict=True)
    }
    return Row(engine="vllm", quantizations=[name], cells=cells)


def test_formats_that_run_alike_share_a_row_where_the_first_of_them_was() -> None:
    found = grouped([_row("a", "nn"), _row("b", "nw"), _row("c", "nn")])
    assert [(row.quantizations, row.cells["B"].way) for row in found] == [
        (["a", "c"], "native"),
        (["b"], "weight-only"),
    ]


def test_a_reason_is_told_once_for_all_that_it_holds_for() -> None:
    rows = [
        _row("GPTQ", "nx", "its kernel for GPTQ needs AVX-512"),
        _row("AWQ", "nx", "its kernel for AWQ needs AVX-512"),
        _row("INT8", "xx", "vllm cannot serve int8 on A: use fp8"),
    ]
    told = [(why.quantizations, why.accelerators, why.reason) for why in reasons(rows)]
    assert told[0] == (["GPTQ", "AWQ"], ["B"], "its kernel for it needs AVX-512")
    assert told[1] == (["INT8"], ["A"], "use fp8")
