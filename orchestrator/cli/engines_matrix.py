"""`orch engines matrix`: which engine serves which weight format on which accelerator, how, and why not."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.app import home
from orchestrator.cli.engines import AsJson, engines

if TYPE_CHECKING:
    from orchestrator.catalog.gpus import Gpu
    from orchestrator.serving.support_matrix import Row

SHOWN = ("H100", "A100-80GB", "RTX-4090", "B200", "MI300X")
"""And this machine's CPU."""
_STYLES = {"native": "green", "weight-only": "cyan", "emulated": "yellow", "no": "red"}
_LEGEND = (
    "native: kernels for the format; weight-only: unpacked to 16 bits for each product; emulated: by slow reference"
    " code, not planned; no: for the reason below"
)


@engines.command()
def matrix(
    gpu: Annotated[list[str] | None, typer.Option("--gpu", help="Only on this one, such as H100 or cpu.")] = None,
    engine: Annotated[list[str] | None, typer.Option("--engine", help="Only of this one, such as vllm.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say which engine serves which weight format on which accelerator, how, and where it does not, why."""
    from orchestrator import engines as package
    from orchestrator import plugins
    from orchestrator.serving import support_matrix

    rows = support_matrix.matrix(engine or plugins.names(package), _accelerators(gpu or [*SHOWN, support_matrix.CPU]))
    if as_json:
        print(json.dumps([row.model_dump() for row in rows], indent=2))
    else:
        _show(rows)


def _accelerators(words: Sequence[str]) -> "list[Gpu | None]":
    from orchestrator.catalog.catalog import load

    catalog = load(home())
    return [None if word.lower() == "cpu" else catalog.gpu(word) for word in words]


def _show(rows: "Sequence[Row]") -> None:
    from rich.markup import escape
    from rich.padding import Padding
    from rich.table import Table

    from orchestrator.cli.show import console
    from orchestrator.serving import support_matrix

    out = console()
    table = Table("format", *rows[0].cells, box=None, padding=(0, 1, 0, 0))
    before = None
    for row in support_matrix.grouped(rows):
        if row.engine != before:
            table.add_row(f"[bold]{row.engine}[/]")
        ways = [f"[{_STYLES[cell.way]}]{cell.way}[/]" for cell in row.cells.values()]
        table.add_row(Padding(" ".join(row.quantizations), (0, 0, 0, 2)), *ways)
        before = row.engine
    out.print(table)
    out.print(f"[dim]{_LEGEND}[/]")
    for why in support_matrix.reasons(rows):
        what, where = " ".join(why.quantizations), ", ".join(why.accelerators)
        out.print(f"{why.engine} {what} on {where}: {escape(why.reason)}")
