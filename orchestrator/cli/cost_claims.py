"""What `orch cost claims` prints: each claim, the verdict, why, and the numbers that were computed."""

import json
from pathlib import Path

from rich.markup import escape
from rich.padding import Padding

from orchestrator.catalog import claims
from orchestrator.catalog.catalog import load
from orchestrator.cli.cost_show import console
from orchestrator.cli.cost_words import number
from orchestrator.planner.money.claims import Checked, Figure, check

_STYLES = {"right": "green", "rounded": "green", "in part": "yellow", "wrong": "red", "unknown": "dim"}


def show(file: Path | None, home: Path, *, as_json: bool) -> None:
    """All claims of a file; default: the shipped ones."""
    asked, catalog = claims.load(file), load(home)
    found = [check(claim, catalog) for claim in asked.claims]
    if as_json:
        print(json.dumps({"source": asked.source, "claims": [checked.model_dump() for checked in found]}, indent=2))
        return
    out = console()
    out.print(f"[dim]{escape(asked.source)}, {asked.date}; computed with the catalog's prices[/]")
    for checked in found:
        out.print(f"\n[bold]{escape(checked.claim.id)}[/] {_verdict(checked)}  {escape(checked.claim.says)}")
        out.print(Padding(escape(checked.finding.words), (0, 0, 0, 4)))
        out.print(Padding(f"[dim]{escape('; '.join(_figure(f) for f in checked.finding.figures))}[/]", (0, 0, 0, 4)))


def _verdict(checked: Checked) -> str:
    verdict = checked.finding.verdict
    return f"[{_STYLES[verdict]}]{verdict}[/]"


def _figure(figure: Figure) -> str:
    ends = number(figure.low) + ("" if figure.high == figure.low else f" to {number(figure.high)}")
    return f"{figure.name} {ends} {figure.unit}"
