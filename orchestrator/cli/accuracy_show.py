"""`orch plan --accuracy`: predicted beside measured, for every stage that past runs have carried out."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from rich.table import Table

from orchestrator.cli.plan_words import amount, money, seconds, text
from orchestrator.cli.show import console
from orchestrator.controller.accuracy import Held
from orchestrator.controller.accuracy import accuracy as held
from orchestrator.planner.forecast import GIB
from orchestrator.store.store import Store


def accuracy(home: Path, recipe: Path | None, *, as_json: bool) -> None:
    """Of all runs, or of those of one recipe."""
    found = held(Store(home), _name(recipe, home))
    if as_json:
        rows = [{**one.model_dump(), "error": one.error, "inside": one.inside} for one in found]
        print(json.dumps({"summary": _summary(found), "rows": rows}, indent=2))
        return
    out = console()
    if not found:
        out.print("no run has carried out a stage with a forecast yet; `orch run RECIPE` is a start")
        return
    out.print(_table(found))
    out.print(_words(_summary(found)))


def _name(recipe: Path | None, home: Path) -> str | None:
    from orchestrator.recipe.load import load_recipe

    return load_recipe(recipe, [], home).recipe.name if recipe else None


def _table(found: Sequence[Held]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("run", "stage", "what"):
        table.add_column(column)
    for column in ("predicted", "interval", "measured", "error"):
        table.add_column(column, justify="right")
    table.add_column("inside")
    last = None
    for one in found:
        run, last = (one.run if one.run != last else ""), one.run
        table.add_row(run, one.stage, one.quantity, *_numbers(one))
    return table


def _numbers(one: Held) -> list[str]:
    if one.predicted is None or one.low is None or one.high is None:
        return ["unknown", "", _shown(one, one.measured), "", ""]
    span = f"{_shown(one, one.low)} to {_shown(one, one.high)}"
    error = f"{one.error:+.0%}" if one.error is not None else ""
    inside = "[green]yes[/]" if one.inside else "[red]no[/]"
    return [_shown(one, one.predicted), span, _shown(one, one.measured), error, inside]


def _shown(one: Held, value: float) -> str:
    if one.unit == "bytes":
        return f"{value / GIB:.2f} GiB"
    return text(value, {"s": seconds, "USD": money}.get(one.unit, amount))


def _summary(found: Sequence[Held]) -> dict[str, float | int | None]:
    judged = [one for one in found if one.inside is not None]
    errors = [abs(one.error) for one in judged if one.error is not None]
    return {
        "numbers": len(found),
        "predicted": len(judged),
        "inside": sum(bool(one.inside) for one in judged),
        "median_error": median(errors) if errors else None,
    }


def _words(summary: dict[str, float | int | None]) -> str:
    error = summary["median_error"]
    median_ = f"; median error {error:.0%}" if error is not None else ""
    return (
        f"{summary['inside']} of {summary['predicted']} predictions held; "
        f"{(summary['numbers'] or 0) - (summary['predicted'] or 0)} numbers had none{median_}"
    )
