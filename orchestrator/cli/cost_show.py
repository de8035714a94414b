"""What `orch cost compare` and `orch cost assumptions` print: tables, a conclusion in words, CSV for a spreadsheet."""

import csv as csv_format
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, Group
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from orchestrator.catalog.assumptions import Assumption, shipped
from orchestrator.cli import cost_plot
from orchestrator.cli.cost_words import bound, dollars, number, saving, share, tokens
from orchestrator.errors import InputError
from orchestrator.planner.money.break_even import BreakEven
from orchestrator.planner.money.comparison import Bill, Comparison, OwnFleet

_PIPE_WIDTH = 160
_SWINGS = 12
_WIDE, _WIDER = 100, 110
_SHORT = {"own assumption": "own", "given on the command line": "given", "given or predicted": "case", "given": "case"}
"""Sources that need no note: the project's own assumption, the command line, the case."""
TITLES = {"self-hosted": "self-hosted", "api": "API", "hybrid": "hybrid"}


def console() -> Console:
    """Where tables go; wide enough for a pipe to keep whole lines, unless $COLUMNS says how wide."""
    found = Console(highlight=False)
    return found if found.is_terminal or os.environ.get("COLUMNS") else Console(highlight=False, width=_PIPE_WIDTH)


def comparison(found: Comparison, *, plot: bool = True) -> None:
    """All of it, the conclusion last."""
    out = console()
    out.print(
        f"[bold]{escape(found.hosted)}[/]  against  [bold]{escape(found.versus)}[/]\n"
        f"{tokens(found.tokens_per_month)} tokens a month, {share(found.input_share)} input;"
        f" API {dollars(found.api_usd_per_million)} per million of this mix\n[dim]{escape(found.api_price)}[/]"
    )
    out.print(assumptions(found, out.width))
    for table in (monthly(found), years(found), sensitivity(found, out.width)):
        out.print(table)
    if plot:
        print()
        print(cost_plot.curves(found, out.width, colour=out.is_terminal))
    out.print()
    for line in conclusion(found):
        out.print(escape(line))
    for warning in found.warnings:
        out.print(f"[yellow]mind: {escape(warning)}[/]")


def monthly(found: Comparison) -> Table:
    """A row for each component, a column for each way."""
    table = _table("a month of the first year, USD")
    table.add_column("component", no_wrap=True)
    for bill in found.bills:
        table.add_column(TITLES[bill.way], justify="right", no_wrap=True)
    amounts = {bill.way: {item.component: item.usd for item in bill.monthly} for bill in found.bills}
    names = dict.fromkeys(name for bill in found.bills for name in amounts[bill.way])
    for name in names:
        cells = [amounts[bill.way].get(name) for bill in found.bills]
        if any(cells):
            table.add_row(name, *("" if cell is None else f"{cell:,.0f}" for cell in cells))
    table.add_row("[bold]a month[/]", *(f"[bold]{bill.usd_per_month:,.0f}[/]" for bill in found.bills))
    table.add_row("per million tokens", *(f"{bill.usd_per_million_tokens:,.2f}" for bill in found.bills))
    return table


def years(found: Comparison) -> Table:
    """What is paid once, and the sums over the years."""
    table = _table("over the years, USD")
    table.add_column("", no_wrap=True)
    for bill in found.bills:
        table.add_column(TITLES[bill.way], justify="right", no_wrap=True)
    table.add_row("once, to build", *(f"{bill.usd_once:,.0f}" for bill in found.bills))
    for span in found.bills[0].usd_over_years:
        best = min(bill.usd_over_years[span] for bill in found.bills)
        cells = [(bill.usd_over_years[span], bill.usd_over_years[span] == best) for bill in found.bills]
        name = f"{span} year{'s' if span > 1 else ''}, with it"
        table.add_row(name, *(f"[bold]{usd:,.0f}[/]" if is_best else f"{usd:,.0f}" for usd, is_best in cells))
    return table


def sensitivity(found: Comparison, width: int) -> Table:
    """The widest swings: what self-hosting saves over the years at each end, and the break-even."""
    title = f"what moves it: saving of self-hosting over {_longest(found)} years, widest first"
    table = _table(title)
    table.add_column("assumption", no_wrap=True)
    for name in ("low", "high", "at low", "at high"):
        table.add_column(name, justify="right", no_wrap=True)
    wide = width >= _WIDER
    if wide:
        table.add_column("break-even", justify="right", no_wrap=True)
        table.add_column("at high", justify="right", no_wrap=True)
    if any(swing.flips for swing in found.sensitivity):
        table.add_column("", no_wrap=True)
    for swing in found.sensitivity[:_SWINGS]:
        cells = [number(swing.low), number(swing.high), saving(swing.saving_at_low), saving(swing.saving_at_high)]
        if wide:
            cells += [bound(swing.break_even_at_low), bound(swing.break_even_at_high)]
        table.add_row(swing.assumption, *cells, *(["flips"] if swing.flips else []))
    return table


def assumptions(found: Comparison, width: int) -> Group:
    """Every one with its source, those that do not apply here last; a source of more than a word is a note below."""
    table = _table("assumptions (--set NAME=VALUE changes one)")
    table.add_column("name", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    if width >= _WIDE:
        table.add_column("range", no_wrap=True)
    table.add_column("source", no_wrap=True)
    notes: dict[str, int] = {}
    for listed in sorted(found.assumptions, key=lambda listed: not listed.applies):
        known = listed.assumption
        source = _SHORT.get(known.source) or f"({notes.setdefault(known.source, len(notes) + 1)})"
        cells = [known.id, _value(known), known.unit, *([_ends(known)] if width >= _WIDE else []), source]
        if not listed.applies:
            cells[-1] += " no effect"
        table.add_row(*cells, style=None if listed.applies else "dim")
    return Group(table, *(f"[dim]({place}) {escape(source)}[/]" for source, place in notes.items()))


def listing(*, as_json: bool) -> None:
    """`orch cost assumptions`."""
    known = shipped()
    if as_json:
        print(json.dumps([assumption.model_dump() for assumption in known.values()], indent=2))
        return
    out = console()
    for assumption in known.values():
        ends = f", {_ends(assumption)}" if _ends(assumption) else ""
        out.print(f"[bold]{assumption.id}[/] = {_value(assumption)} {escape(assumption.unit)}{ends}")
        text = f"{assumption.about} Source: {assumption.source}, {assumption.date}."
        out.print(Padding(escape(text), (0, 0, 0, 4)))


def _value(assumption: Assumption) -> str:
    return "unknown" if assumption.value is None else number(assumption.value)


def _ends(assumption: Assumption) -> str:
    if assumption.low is None or assumption.high is None or assumption.low == assumption.high:
        return ""
    return f"{number(assumption.low)} to {number(assumption.high)}"


def _table(title: str) -> Table:
    return Table(title=f"\n{title}", title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))


def conclusion(found: Comparison) -> Iterator[str]:
    """What a reader takes away, in sentences."""
    span = _longest(found)
    by_way = {bill.way: bill for bill in found.bills}
    low, high = found.saving_interval
    least = by_way[found.cheapest].usd_over_years[span]
    yield f"cheapest over {span} years: {TITLES[found.cheapest]} ({dollars(least)})"
    versus = (
        f"saves {dollars(found.saving)} against" if found.saving >= 0 else f"costs {dollars(-found.saving)} more than"
    )
    yield (
        f"self-hosting {versus} the API over {span} years; between {saving(low)} and {saving(high)} when the"
        f" assumptions vary independently over their ranges"
    )
    yield f"break-even of the running costs: {_point(found.break_even)}"
    if found.break_even.first is not None:
        yield f"with the build spread over {span} years: {_point(found.break_even_amortised)}"
    hybrid = found.hybrid_break_even
    yield (
        "the hybrid never costs less than the API alone"
        if hybrid is None
        else (f"the hybrid costs less than the API alone from {tokens(hybrid)} tokens a month")
    )
    yield _fleet_words("self-hosted", found.own_fleet)
    yield _fleet_words("hybrid", found.hybrid_fleet)
    if found.own_fleet.utilisation:
        yield _per_million(found, by_way["self-hosted"], found.own_fleet.utilisation)
    yield _makeup(by_way["self-hosted"])
    yield f"not compared: whether the own model answers as well as {found.versus}"


def _point(found: BreakEven) -> str:
    if found.first is None or found.always is None or found.first == 0:
        return found.reason + (f" (the first at {tokens(found.first)} tokens a month)" if found.first else "")
    per_day = tokens(found.first / 365 * 12)
    text = f"{tokens(found.first)} tokens a month ({per_day} a day)"
    if found.always > found.first:
        text += f"; above {tokens(found.always)} at every load"
    return text if found.capacity_checked else f"{text}, if these replicas carry it (capacity unknown)"


def _fleet_words(name: str, fleet: OwnFleet) -> str:
    busy = "unknown how busy" if fleet.utilisation is None else f"{share(fleet.utilisation)} busy on average"
    over = "" if fleet.share_carried >= 1 else f"; {share(1 - fleet.share_carried)} of the tokens go to the API"
    return (
        f"{name}: {fleet.gpus} GPU ({fleet.replicas} replica(s) + {fleet.spare_replicas} spare) at"
        f" {dollars(fleet.usd_per_gpu_hour)}/h, {busy}{over}"
    )


def _per_million(found: Comparison, own: Bill, busy: float) -> str:
    million = found.tokens_per_month / 1e6
    gpus = {item.component: item.usd for item in own.monthly if item.component.startswith("GPUs")}
    return (
        f"the GPUs cost {dollars(sum(gpus.values()) / million)} per million tokens at this load; a replica that is"
        f" always full would cost {dollars(gpus['GPUs, serving'] / million * busy)}, which is what a benchmark prints"
    )


def _makeup(own: Bill) -> str:
    gpus = sum(item.usd for item in own.monthly if item.component.startswith("GPUs"))
    people = sum(item.usd for item in own.monthly if item.component in ("staff, run", "on-call"))
    if not gpus:
        return "the GPUs cost nothing here"
    return (
        f"of the self-hosted bill {share(gpus / own.usd_per_month)} are GPUs and {share(people / own.usd_per_month)}"
        f" people; all in it is {own.usd_per_month / gpus:.1f}x the GPUs (others publish 1.4-1.7x, and 3-5x)"
    )


def _longest(found: Comparison) -> int:
    return max(found.bills[0].usd_over_years)


def write_csv(found: Comparison, path: str) -> None:
    """One long table: section, way, item, value, unit, note."""
    text = io.StringIO()
    writer = csv_format.writer(text, lineterminator="\n")
    writer.writerow(["section", "way", "item", "value", "unit", "note"])
    writer.writerows(_rows(found))
    if path == "-":
        sys.stdout.write(text.getvalue())
        return
    try:
        Path(path).write_text(text.getvalue(), encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error}") from error


def _rows(found: Comparison) -> Iterator[tuple[object, ...]]:
    for bill in found.bills:
        yield from (("monthly", bill.way, i.component, round(i.usd, 2), "USD/month", i.because) for i in bill.monthly)
        yield ("monthly", bill.way, "total", round(bill.usd_per_month, 2), "USD/month", "")
        yield ("monthly", bill.way, "per million tokens", round(bill.usd_per_million_tokens, 4), "USD/M", "")
        yield from (("once", bill.way, i.component, round(i.usd, 2), "USD", i.because) for i in bill.once)
        for span, usd in bill.usd_over_years.items():
            yield ("years", bill.way, f"{span}", round(usd, 2), "USD", "with what is paid once, discounted")
    for name, point in (("running", found.break_even), ("amortised", found.break_even_amortised)):
        yield (
            "break-even",
            "self-hosted",
            name,
            "" if point.first is None else point.first,
            "tokens/month",
            point.reason,
        )
    yield ("break-even", "hybrid", "running", found.hybrid_break_even or "", "tokens/month", "")
    for swing in found.sensitivity:
        ends = ((swing.low, swing.saving_at_low), (swing.high, swing.saving_at_high))
        yield from (
            ("sensitivity", "self-hosted", swing.assumption, round(usd, 2), "USD saved", f"at {end:g}")
            for end, usd in ends
        )
    for load in found.curve:
        for way, usd in load.usd.items():
            yield ("curve", way, round(load.tokens_per_month), round(usd, 2), "USD/month", "item: tokens/month")
    for listed in found.assumptions:
        a = listed.assumption
        note = f"{a.source} ({a.date})" + ("" if listed.applies else "; no effect here")
        yield ("assumption", "", a.id, "" if a.value is None else a.value, a.unit, note)
