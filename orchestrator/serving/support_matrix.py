"""Every engine, the weight formats that it is given in recipes, and how each runs on an accelerator; with the reasons.

    for row in grouped(matrix(["vllm"], [catalog.gpu("H100"), None])): ...

The engines' own `supports` decides whether a format is served; the planner's `servable` tells native kernels from
weights that are unpacked for each product.
"""

import contextlib
from collections.abc import Sequence

from orchestrator import engines, plugins
from orchestrator.catalog.gpus import Gpu
from orchestrator.config import Model
from orchestrator.engines.base import LORA
from orchestrator.errors import InputError
from orchestrator.planner.serving.formats import weight_format
from orchestrator.planner.serving.servable import Kind, way, way_on_cpu
from orchestrator.planner.serving.serving import Serving

CPU = "CPU"
"""The name of this machine's CPU among accelerators."""


class Cell(Model):
    """One engine's way with one format on one accelerator."""

    way: Kind
    """native: kernels for the format; weight-only: unpacked to 16 bits for each product; emulated: reference code."""
    reason: str = ""
    """Why it is emulated, or not served, with what would do."""


class Row(Model):
    """One engine and weight formats that it serves alike."""

    engine: str
    """As in a recipe."""
    quantizations: list[str]
    """As in a recipe."""
    cells: dict[str, Cell]
    """By kind of accelerator."""


def matrix(names: Sequence[str], accelerators: Sequence[Gpu | None]) -> list[Row]:
    """A row for each engine and format; None is this machine's CPU. Raises InputError for an unknown engine."""
    return [
        Row(
            engine=name,
            quantizations=[quantization],
            cells={gpu.kind if gpu else CPU: cell(name, quantization, gpu) for gpu in accelerators},
        )
        for name in names
        for quantization in plugins.load(engines, name).QUANTIZATIONS
    ]


def grouped(rows: Sequence[Row]) -> list[Row]:
    """Formats of an engine that run alike everywhere as one row, where the first of them was."""
    found: dict[tuple[str, ...], Row] = {}
    for row in rows:
        alike = (row.engine, *(f"{kind} {cell.way}" for kind, cell in row.cells.items()))
        before = found[alike].quantizations if alike in found else []
        found[alike] = row.model_copy(update={"quantizations": [*before, *row.quantizations]})
    return list(found.values())


class Why(Model):
    """One reason, and all that it holds for."""

    engine: str
    quantizations: list[str]
    accelerators: list[str]
    reason: str


def reasons(rows: Sequence[Row]) -> list[Why]:
    """Why something is emulated or not served, each reason once; of rows that are not grouped."""
    found: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for row in rows:
        (name,) = row.quantizations
        for kind, cell in row.cells.items():
            if cell.reason:
                said = cell.reason.removeprefix(f"{row.engine} cannot serve {weight_name(name)} on {kind}: ")
                said = said.replace(f" on {kind}", " there")
                found.setdefault((row.engine, said.replace(name, "it")), []).append((name, kind, said))
    return [_why(engine, alike, holds) for (engine, alike), holds in found.items()]


def _why(engine: str, alike: str, holds: Sequence[tuple[str, str, str]]) -> Why:
    names, kinds = (list(dict.fromkeys(part[place] for part in holds)) for place in (0, 1))
    return Why(engine=engine, quantizations=names, accelerators=kinds, reason=holds[0][2] if len(names) == 1 else alike)


def weight_name(quantization: str) -> str:
    """The planner's name of a format, or the recipe's where the planner does not know it."""
    with contextlib.suppress(InputError):
        return weight_format(quantization).name
    return quantization


def cell(engine: str, quantization: str, gpu: Gpu | None) -> Cell:
    """How the engine serves the format there."""
    support = plugins.load(engines, engine).supports(quantization, gpu)
    kind = _kind(engine, "bf16" if quantization == LORA else quantization, gpu)
    if support.ok:
        return Cell(way=kind if kind == "weight-only" else "native")
    return Cell(way="emulated" if kind == "emulated" else "no", reason=support.reason)


def _kind(engine: str, quantization: str, gpu: Gpu | None) -> Kind | None:
    """As the planner knows it; None: it does not know the engine or the format."""
    with contextlib.suppress(InputError):
        served = Serving(engine=engine, quantization=quantization)
        return (way(served, gpu) if gpu else way_on_cpu(served)).kind
    return None
