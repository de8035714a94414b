"""What `orch bench` prints of results: lists, tables of cells, findings and the plot; all from plain data."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from orchestrator.report.comparison import is_shown, is_worse, label
from orchestrator.report.findings import doubts, findings, load, measured, slo_words, workloads
from orchestrator.report.words import duration, number

Data = Mapping[str, Any]
_LATENCIES = (
    ("ttft", "p50", "TTFT p50", 105),
    ("ttft", "p95", "TTFT p95", 0),
    ("itl", "p50", "ITL p50", 115),
    ("itl", "p95", "ITL p95", 140),
    ("tpot", "p95", "TPOT p95", 0),
    ("e2e", "p95", "E2E p95", 150),
)
"""(latency, share, title, columns that a terminal must have for it)"""
_WIDE = 130


def console(*, stderr: bool = False) -> Console:
    """Where tables go; wide enough for a pipe to keep whole lines."""
    found = Console(highlight=False, stderr=stderr)
    return found if found.is_terminal else Console(highlight=False, stderr=stderr, width=180)


def result(found: Data, *, plot: bool = True) -> None:
    """A whole result: what it is, its cells, the curves and what was found."""
    out = console()
    out.print(_title(found))
    for workload in workloads(found):
        if len(workloads(found)) > 1:
            out.print(f"\n[bold]{escape(workload)}[/]")
        out.print(cells(found, workload, out.width))
        for remark in remarks(found, workload):
            out.print(remark)
        if plot:
            _plot(out, found, workload)
        for sentence in findings(found)[workload]:
            out.print(escape(sentence))
    for doubt in doubts(found):
        out.print(f"[yellow]{escape(doubt)}[/]")


def _title(found: Data) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(found["created"]))
    engines = ", ".join(
        f"{target['name']} ({target['engine'] or 'engine unknown'} {target['engine_version'] or ''})".replace(" )", ")")
        for target in found["targets"]
    )
    of = "" if found["source"] == "orch" else f"  imported from {found['source']}"
    slo = f"\nSLO {slo_words(found['slo'])}" if slo_words(found["slo"]) else ""
    return f"[bold]{escape(found['name'])}[/]  {found['id']}  {when}{of}\n{escape(engines)}{slo}"


def cells(found: Data, workload: str, width: int) -> Table:
    """A row for each cell of a workload."""
    chosen = [cell for cell in found["cells"] if cell["workload"] == workload]
    priced = any(cell["summary"] and cell["summary"]["usd_per_million_tokens"] is not None for cell in chosen)
    latencies = [(name, share, title) for name, share, title, least in _LATENCIES if width >= least]
    rates = [("output_tokens_per_s", "tokens/s")] + ([("requests_per_s", "req/s")] if width >= _WIDE else [])
    rates += [("goodput", "goodput")] if found["slo"] else []
    rates += [("usd_per_million_tokens", "$/M tok")] if priced else []
    table = Table(box=None, padding=(0, 2 if width >= _WIDE else 1, 0, 0))
    several = len(found["targets"]) > 1
    for name in [*(["target"] if several else []), "load"]:
        table.add_column(name, no_wrap=True)
    for name in ["requests", *(title for _, _, title in latencies), *(title for _, title in rates)]:
        table.add_column(name, justify="right", no_wrap=True)
    for cell in _ordered(chosen, found["targets"]):
        names = [escape(cell["target"])] if several else []
        table.add_row(*names, load(cell), *_figures(cell, latencies, [name for name, _ in rates]))
    return table


def _ordered(cells: Sequence[Data], targets: Sequence[Data]) -> list[Data]:
    place = {target["name"]: number for number, target in enumerate(targets)}
    return sorted(
        cells, key=lambda cell: (place[cell["target"]], cell["mode"], cell["concurrency"] or cell["rate"] or 0)
    )


def _figures(cell: Data, latencies: Sequence[tuple[str, str, str]], rates: Sequence[str]) -> list[str]:
    summary = cell["summary"]
    if cell["state"] == "failed" or not summary:
        return ["[red]failed[/]", *["–"] * (len(latencies) + len(rates))]
    spreads = [summary["latencies"].get(name, {}).get(share) for name, share, _ in latencies]
    counts = number(summary["succeeded"])
    if summary["succeeded"] != summary["requests"]:
        counts += f"/{number(summary['requests'])}"
    return [counts, *map(duration, spreads), *(_rate(summary, name) for name in rates)]


def _rate(summary: Data, name: str) -> str:
    if name != "goodput" or summary[name] is None:
        return number(summary[name])
    mark = {True: " [green]✓[/]", False: " [red]✗[/]", None: ""}[summary["keeps_slo"]]
    return f"{100 * summary[name]:.1f} %{mark}"


def remarks(found: Data, workload: str) -> Iterator[str]:
    """What the rows of a table cannot hold: why cells failed, and the kinds of errors."""
    for cell in found["cells"]:
        if cell["workload"] != workload:
            continue
        name = escape(f"{cell['target']} at {load(cell)}" if len(found["targets"]) > 1 else load(cell))
        if cell["state"] == "failed":
            yield f"[red]{name} failed[/]: {escape(cell['cause'] or 'no reason was recorded')}"
        elif cell["summary"] and cell["summary"]["errors"]:
            kinds = ", ".join(f"{count} {kind}" for kind, count in cell["summary"]["errors"].items())
            said = cell["summary"]["error_example"]
            yield f"[yellow]{name}[/]: {escape(kinds)}" + (f"; for example: {escape(said)}" if said else "")
        if cell["summary"] and cell["summary"]["client"] and cell["summary"]["client"]["limited"]:
            yield f"[red]{name}: client-limited: add --workers[/]"


def _plot(out: Console, found: Data, workload: str) -> None:
    from orchestrator.cli.bench_plot import curves

    drawn = curves(found, workload, out.width)
    if drawn:
        out.print()
        out.print(Text.from_ansi(drawn))
        out.print()


def comparison(found: Data) -> None:
    """What changed from A to B, cell by cell; what may be chance on one line."""
    out = console()
    out.print(f"\n[bold]B against A, {escape(found['title'])}[/]  {escape(found['pairing'])}")
    for warning in found["warnings"]:
        out.print(f"[yellow]warning: {escape(warning)}[/]", soft_wrap=True)
    for cell in found["cells"]:
        out.print(f"\n[bold]{escape(cell['name'])}[/]  [dim]{escape(cell['note'])}[/]", soft_wrap=True)
        for words in _changes(cell):
            out.print(f"  {words}", soft_wrap=True)
    for name in found["unmatched"]:
        out.print(f"[dim]not compared: {escape(name)}[/]")


def _changes(cell: Data) -> Iterator[str]:
    if cell["failed"]:
        yield f"[red]failed in B[/]: {escape(cell['failed'])}"
    for warning in cell["warnings"]:
        yield f"[yellow]warning: {escape(warning)}[/]"
    for change in cell["changes"]:
        if is_shown(change):
            yield f"[{'red' if is_worse(change) else 'green'}]{escape(change['verdict'])}[/]"
    if cell["errors"] and cell["errors"]["failed_a"] + cell["errors"]["failed_b"]:
        yield escape(cell["errors"]["verdict"])
    for title, rest in (("no difference shown", True), ("too few requests to tell from chance", False)):
        names = [
            _unclear(change) for change in cell["changes"] if not is_shown(change) and bool(change["interval"]) is rest
        ]
        if names:
            yield f"[dim]{title}: {escape(', '.join(names))}[/]"


def _unclear(change: Data) -> str:
    between = f" [{100 * change['interval'][0]:.0f}, {100 * change['interval'][1]:.0f}]" if change["interval"] else ""
    return f"{label(change['metric'])} {100 * change['change']:+.1f} %{between}"


def listing(results: Sequence[Data], baselines: Mapping[str, str]) -> None:
    """Stored results, the newest first."""
    if not results:
        console().print("nothing has been benchmarked yet; `orch bench run http://127.0.0.1:8000` is a start")
        return
    table = Table("benchmark", "when", "name", "targets", "cells", "best", "", box=None, padding=(0, 2, 0, 0))
    for found in results:
        failed = sum(cell["state"] == "failed" for cell in found["cells"])
        of = [name for name, id in baselines.items() if id == found["id"]]
        rates = [cell["summary"]["output_tokens_per_s"] for cell in measured(found)]
        table.add_row(
            found["id"],
            time.strftime("%Y-%m-%d %H:%M", time.localtime(found["created"])),
            escape(found["name"]),
            escape(", ".join(target["name"] for target in found["targets"])),
            str(len(found["cells"])) + (f" ([red]{failed} failed[/])" if failed else ""),
            f"{number(max(rates))} tokens/s" if rates else "–",
            f"baseline of {escape(', '.join(of))}" if of else "" if found["source"] == "orch" else found["source"],
        )
    console().print(table)
