"""What `orch plan` prints of a forecast: memory, time and cost, targets, layouts, licence, budget; and the sums."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orchestrator.cli.plan_words import Show, amount, interval, middle, money, per_second, seconds, short, spread, text
from orchestrator.planner.estimate import Estimate, Term, Unknown
from orchestrator.planner.forecast import (
    GIB,
    Forecast,
    Layout,
    LicenseForecast,
    LoadForecast,
    MeasuredLoad,
    Price,
    StageForecast,
    TargetForecast,
)
from orchestrator.planner.license import Finding
from orchestrator.planner.plan import Plan
from orchestrator.planner.serving.memory import ServingFit

SHOWN_LAYOUTS = 8
"""Of those that are not refused; refused ones are as many at most. `--json` has all."""
SHOWN_FINDINGS = 5
ELSEWHERE, LATER, OTHER = "*", "+", "~"
"""Marks of a layout that the cluster lacks, that this version cannot carry out, of another number format."""
Written = Callable[[Estimate | Unknown | None, Show], str]
"""`interval`, or `middle` where there is no room."""
WIDE = 110
"""Columns from which prices and layouts are shown with their intervals."""
_INDENT = 2


def forecast(out: Console, plan: Plan) -> None:
    """Everything that the plan predicts, section by section."""
    found = plan.forecast
    if found is None:
        return
    written = interval if out.width >= WIDE else middle
    _section(out, "Memory", _memory(found))
    _section(out, "Time and cost", _time_and_cost(found))
    if found.targets:
        _section(out, "Targets", Group(*_targets(found.targets, written)))
    if found.layouts:
        left_out = {target.name for target in plan.targets if target.left_out}
        layouts = [layout for layout in found.layouts if layout.purpose not in left_out]
        _section(out, f"Layouts, by {found.prefer}", _layouts(layouts, written))
    if found.license:
        _section(out, "Licence", _license(found.license))
    if found.budget:
        _section(out, "Budget", _budget(found))
    for warning in found.warnings:
        out.print(f"[yellow]warning[/]: {escape(warning)}")


def told(plan: Plan) -> dict[str, str]:
    """Obstacles that a section has in full -> in a few words."""
    found = plan.forecast
    license = found.license.obstacle if found and found.license else None
    budget = found.budget.judgement.obstacles if found and found.budget else []
    return {**({license: "a licence forbids it"} if license else {}), **dict.fromkeys(budget, "it is over the budget")}


def explain(out: Console, plan: Plan, topic: str) -> None:
    """The sums behind one section, line by line: `memory`, `time` or `cost`."""
    found = plan.forecast
    if found is None:
        out.print("this recipe has no base model: nothing is predicted")
        return
    sums = {"memory": _memory_sums, "time": _time_sums, "cost": _cost_sums}[topic]
    for title, estimate in sums(found):
        _sum(out, title, estimate)


def _section(out: Console, title: str, body: RenderableType) -> None:
    out.print(f"[bold]{title}[/]")
    out.print(Padding(body, (0, 0, 0, _INDENT), expand=False))


def _table(*columns: str) -> Table:
    """The first column to the left, numbers to the right."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index and not column.startswith("<") else "left")
        table.columns[-1].header = column.lstrip("<")
    return table


def _memory(found: Forecast) -> RenderableType:
    if isinstance(found.train_tokens, type(None)):
        return Text("no training")
    train, on = found.stage("train"), found.accelerator
    if train is None:
        return Text("training is reused")
    if not isinstance(train.memory, Estimate):
        return _unknown(train.memory)
    visible = next((one.visible for one in found.layouts if one.slot == on and one.purpose == "train"), None)
    memory = train.memory
    if memory.source != "predicted":
        return Text(f"training needs {_gib(memory)} GiB of main memory, {memory.source}")
    has = f" of {visible / GIB:.1f} visible on {on}" if visible else ""
    fits = "" if not visible else "[green]fits[/]: " if memory.value <= visible else "[red]does not fit[/]: "
    lines = [f"{fits}training needs {_gib(memory)} GiB{has}"]
    if isinstance(train.resume, Estimate) and train.resume.value > memory.value * 1.01:
        lines[0] += f"; resuming {train.resume.value / GIB:.1f}"
    parts = sorted((term for term in memory.terms if term.amount >= GIB / 20), key=lambda term: -term.amount)
    lines.append("[dim]" + ", ".join(f"{part.name} {part.amount / GIB:.1f}" for part in parts) + "[/]")
    return Group(*(Text.from_markup(line) for line in lines))


def _gib(found: Estimate) -> str:
    return f"{found.value / GIB:.1f} ({found.low / GIB:.1f} to {found.high / GIB:.1f})"


def _unknown(found: Unknown | Estimate | None) -> Text:
    return Text(short(found.reason) if isinstance(found, Unknown) else "not predicted", style="yellow")


def _time_and_cost(found: Forecast) -> RenderableType:
    priced = found.price is not None
    table = _table("stage", "time", *(["cost"] if priced else []))
    for stage in [*found.stages, StageForecast(stage="total", time=found.time, cost=found.cost)]:
        known = isinstance(stage.time, Estimate) or stage.stage == "total"
        if known and (priced or stage.stage != "total" or isinstance(stage.time, Estimate)):
            costs = [interval(stage.cost, money)] if priced else []
            table.add_row(
                stage.stage, interval(stage.time, seconds), *costs, style="bold" if stage.stage == "total" else ""
            )
    parts = (found.time, found.cost) if priced else (found.time,)
    unknown = [part.reason for part in parts if isinstance(part, Unknown)]
    notes = [Text(short(reason), style="yellow") for reason in unknown[:1]]
    for source, names in _sources(found.stages).items():
        notes.append(Text(f"{source}: {', '.join(names)}", style="dim"))
    return Group(_priced(found), *([table] if table.row_count else []), *notes)


def _sources(stages: Sequence[StageForecast]) -> dict[str, list[str]]:
    """Where times come from that the planner does not predict itself -> whose they are."""
    found: dict[str, list[str]] = {}
    for stage in stages:
        if isinstance(stage.time, Estimate) and stage.time.source != "predicted":
            found.setdefault(stage.time.source, []).append(stage.stage)
    return found


def _priced(found: Forecast) -> Text:
    tokens = found.train_tokens
    words = f"on {found.accelerator or 'the CPU'}"
    if isinstance(found.price, Price):
        price = found.price
        span = spread(price.usd_per_hour, price.low, price.high, money)
        words += f" at {span}/h, {price.term}; {price.source}"
    elif isinstance(found.price, Unknown):
        words += f"; {found.price.reason}"
    if isinstance(tokens, Estimate):
        words += f"; {interval(tokens, amount)} training tokens"
    return Text(words, style="dim")


def _targets(found: Sequence[TargetForecast], written: Written) -> list[RenderableType]:
    """Each with what is known of it; those of which nothing is, together by the reason."""
    unknown: dict[str, list[str]] = {}
    for target in found:
        if target.unknown and not target.measured and not isinstance(target.fit, ServingFit):
            unknown.setdefault(short(target.unknown), []).append(target.name)
    alike = {name for names in unknown.values() for name in names}
    shown = [_target(target, written) for target in found if target.name not in alike]
    return [*shown, *(Text(f"{', '.join(names)}: {reason}", style="yellow") for reason, names in unknown.items())]


def _target(target: TargetForecast, written: Written) -> RenderableType:
    on = target.accelerator or "the CPU"
    lengths = {(load.input_tokens, load.output_tokens) for load in target.loads}
    asked = ", {}+{} tokens".format(*next(iter(lengths))) if len(lengths) == 1 else ""
    title = Text(f"{target.name}: {target.engine} {target.quantization} on {on}{asked}", style="bold dim")
    parts: list[RenderableType] = [title]
    if isinstance(target.fit, ServingFit):
        parts.append(_fit(target.fit))
    elif not target.unknown:
        parts.append(_unknown(target.fit))
    if target.measured:
        parts += [Text(target.measured[0].source, style="green"), _measured(target.measured)]
    elif target.loads:
        parts.append(_loads(target.loads, written))
    elif target.unknown:
        parts.append(Text(short(target.unknown), style="yellow"))
    return Group(*parts)


def _fit(fit: ServingFit) -> Text:
    verdict = "[green]fits[/]" if fit.fits else "[red]does not fit[/]"
    holds = f"longest context {fit.longest:,}; {fit.concurrent:,} sequences of {fit.context:,} at once"
    return Text.from_markup(f"{verdict}: {escape(fit.reason.removeprefix('does not fit: '))}; {holds}")


def _loads(loads: Sequence[LoadForecast], written: Written) -> Table:
    lengths = {(load.input_tokens, load.output_tokens) for load in loads}
    table = _table("predicted", "TTFT", "TPOT", "tokens/s", "$/M output")
    for load in loads:
        table.add_row(
            _load(load) + (f", {load.input_tokens}+{load.output_tokens}" if len(lengths) > 1 else ""),
            interval(load.ttft, seconds),
            interval(load.tpot, seconds),
            interval(load.throughput, amount),
            written(load.usd_per_million, money),
        )
    return table


def _measured(loads: Sequence[MeasuredLoad]) -> Table:
    table = _table("measured", "TTFT", "TPOT", "tokens/s", "$/M output")
    for load in loads:
        times = [text(value, seconds) if value is not None else "-" for value in (load.ttft, load.tpot)]
        price = text(load.usd_per_million, money) if load.usd_per_million is not None else "-"
        table.add_row(f"{_load(load)}, {load.workload}", *times, text(load.throughput, amount), price)
    return table


def _load(load: LoadForecast | MeasuredLoad) -> str:
    return f"{load.concurrency} at once" if load.concurrency else f"{load.rate or 0:g}/s"


def _layouts(found: Sequence[Layout], written: Written) -> RenderableType:
    """The best of each purpose, and one line for each kind of accelerator that is refused."""
    table = _table("<", "<for", "<accelerators", "<way", "<weights", "GiB", "time or speed", "cost", "<")
    shown = [layout for purpose in _purposes(found) for layout in _best(found, purpose)]
    for layout in shown:
        table.add_row(
            *_row(layout, written),
            style="" if layout.executable and layout.available and not layout.alternative else "dim",
        )
    good = [layout for layout in found if not layout.refused]
    notes: list[RenderableType] = []
    if len(good) > len(shown):
        notes.append(Text(f"and {len(good) - len(shown)} more layouts; --json has all", style="dim"))
    legend = [
        (">", "the plan takes it", any(layout.chosen for layout in shown)),
        (ELSEWHERE, "not in this cluster", any(not layout.available for layout in shown)),
        (OTHER, "not what the recipe exports", any(layout.alternative for layout in shown)),
        (LATER, "more than one GPU is not available yet", any(not layout.executable for layout in shown)),
    ]
    if words := "  ".join(f"{mark} {meaning}" for mark, meaning, used in legend if used):
        notes.append(Text(words, style="dim"))
    return Group(*([table] if shown else []), *notes, *_refused(found))


def _purposes(found: Sequence[Layout]) -> list[str]:
    return list(dict.fromkeys(layout.purpose for layout in found))


def _best(found: Sequence[Layout], purpose: str) -> list[Layout]:
    """All of a few; of many, those that are not the same on more accelerators than they use."""
    mine = [layout for layout in found if layout.purpose == purpose and not layout.refused]
    if len(mine) > SHOWN_LAYOUTS:
        mine = [layout for layout in mine if not layout.parallelism.startswith("1 of")]
    most = SHOWN_LAYOUTS if purpose == found[0].purpose else SHOWN_LAYOUTS // 2
    return mine[:most] + [layout for layout in mine[most:] if layout.chosen]


def _refused(found: Sequence[Layout]) -> list[RenderableType]:
    """The first of each purpose and kind, which is the one that came nearest to what can be carried out."""
    first: dict[tuple[str, str], Layout] = {}
    for layout in sorted(found, key=lambda layout: (not layout.executable, layout.count)):
        if layout.refused and not layout.alternative:
            first.setdefault((layout.purpose, layout.accelerator), layout)
    lines: list[RenderableType] = []
    for layout in list(first.values())[:SHOWN_LAYOUTS]:
        remedy = f"; {layout.remedy}" if layout.remedy else ""
        words = f"refused: {layout.purpose} on {layout.slot} ({layout.parallelism}): {layout.refused}{remedy}"
        lines.append(Text(words, style="red"))
    if len(first) > SHOWN_LAYOUTS:
        lines.append(Text(f"and {len(first) - SHOWN_LAYOUTS} more kinds refused; --json has all", style="dim"))
    return lines


def _row(layout: Layout, written: Written) -> list[str]:
    memory = layout.memory
    needed = memory.value if isinstance(memory, Estimate) else memory.needed if isinstance(memory, ServingFit) else None
    marks = [(ELSEWHERE, not layout.available), (LATER, not layout.executable), (OTHER, layout.alternative)]
    speed = layout.time if isinstance(layout.time, Estimate) else layout.throughput
    shown = written(speed, seconds if layout.time is speed else per_second)
    return [
        "[green]>[/]" if layout.chosen else "",
        layout.purpose,
        layout.slot,
        layout.parallelism,
        layout.quantization,
        f"{needed / GIB:.1f}" if needed else "?",
        shown,
        _cost(layout, written),
        "".join(mark for mark, holds in marks if holds),
    ]


def _cost(layout: Layout, written: Written) -> str:
    """Of training; per million tokens of a target, and of training on nobody knows how many."""
    if isinstance(layout.cost, Estimate):
        return written(layout.cost, money) + ("" if layout.purpose == "train" else " /M")
    if layout.usd_per_hour is None or not isinstance(layout.throughput, Estimate):
        return "?"
    each = layout.usd_per_hour / 3600 / layout.throughput.value * 1e6
    return f"{text(each, money)} /M"


def _license(found: LicenseForecast) -> RenderableType:
    verdict, style = found.verdict, {"forbidden": "red", "unknown": "yellow"}.get(found.verdict.status, "green")
    lines: list[RenderableType] = [Text(verdict.status, style=style)]
    for finding in verdict.findings[:SHOWN_FINDINGS]:
        lines.append(_finding(finding))
    if len(verdict.findings) > SHOWN_FINDINGS:
        lines.append(Text(f"and {len(verdict.findings) - SHOWN_FINDINGS} more; --json has all", style="dim"))
    if found.accepted:
        lines.append(Text(f"risk accepted by {found.accepted.who}: {found.accepted.reason}", style="bold"))
    return Group(*lines)


def _finding(finding: Finding) -> Text:
    where = f" ({finding.source})" if finding.source and finding.kind == "forbidden" else ""
    return Text(f"{finding.kind}: {finding.subject}: {finding.text}{where}")


def _budget(found: Forecast) -> RenderableType:
    assert found.budget is not None, "only printed where there is one"
    limits, judged = found.budget.budget, found.budget.judgement
    asked = [f"at most {value}" for value in (limits.max_cost_usd, limits.max_duration) if value is not None]
    lines: list[RenderableType] = [Text(" and ".join(asked) or "no limits")]
    lines += [Text(line.split(" (unknown:")[0], style="yellow") for line in judged.warnings]
    lines += [Text(line, style="red") for line in judged.obstacles]
    return Group(*lines)


Sums = Iterable[tuple[str, Estimate | ServingFit | Unknown]]


def _memory_sums(found: Forecast) -> Sums:
    train = found.stage("train")
    if train and train.memory:
        yield f"training on {found.accelerator or 'the CPU'}", train.memory
        if isinstance(train.resume, Estimate) and train.resume != train.memory:
            yield "training, resumed from a checkpoint", train.resume
    for target in found.targets:
        yield (
            f"serving {target.name} ({target.engine}, {target.quantization}) on {target.accelerator or 'the CPU'}",
            target.fit,
        )


def _time_sums(found: Forecast) -> Sums:
    for stage in found.stages:
        yield stage.stage, stage.time
    yield "all", found.time


def _cost_sums(found: Forecast) -> Sums:
    for stage in found.stages:
        yield stage.stage, stage.cost
    yield "all", found.cost


def _sum(out: Console, title: str, found: Estimate | ServingFit | Unknown) -> None:
    out.print(f"[bold]{escape(title)}[/]")
    if isinstance(found, Unknown):
        least = f"; at least {found.low:,.4g}" if found.low else ""
        out.print(Padding(Text(f"{found.reason}{least}", style="yellow"), (0, 0, 0, _INDENT), expand=False))
        return
    shown, unit = _shown(found)
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(style="dim")
    terms: list[Term] = found.terms
    for term in terms:
        table.add_row(shown(term.amount), term.name, escape(term.because))
    if isinstance(found, Estimate):
        table.add_row(
            shown(found.value), f"= {unit}", f"between {shown(found.low)} and {shown(found.high)}; {found.source}"
        )
    else:
        table.add_row(shown(found.needed), f"= {unit}", escape(found.reason))
    out.print(Padding(table, (0, 0, 0, _INDENT), expand=False))


def _shown(found: Estimate | ServingFit) -> Any:
    if isinstance(found, ServingFit) or found.unit == "bytes":
        return (lambda value: f"{value / GIB:.3f}"), "GiB"
    if found.unit == "s":
        return (lambda value: text(value, seconds)), "s"
    return (lambda value: f"{value:,.4g}"), found.unit


def schema() -> str:
    """The JSON Schema of `orch plan --json`."""
    return json.dumps(Plan.model_json_schema(), indent=2)
