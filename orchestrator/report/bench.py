"""One self-contained HTML page per benchmark: no script, no font and no picture is loaded from anywhere.

    Path("report.html").write_text(render(result.model_dump(mode="json")))

It takes plain data, so that reports know nothing of how a benchmark is run. Times come in seconds, and are shown in
the unit that reads best; what is not known is a dash, or is said in its place.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.report import bench_charts as charts
from orchestrator.report import strips
from orchestrator.report.bench_charts import Distribution, Line, Point
from orchestrator.report.comparison import view
from orchestrator.report.findings import Data, doubts, findings, load, measured, slo_words, workloads
from orchestrator.report.strips import Panel, Points
from orchestrator.report.words import duration, moment, number, page

_TAILS = (("ttft", "TTFT"), ("itl", "ITL"), ("tpot", "TPOT"))
_COLUMNS = (
    ("ttft", "p50", "TTFT p50"),
    ("ttft", "p95", "p95"),
    ("ttft", "p99", "p99"),
    ("itl", "p50", "ITL p50"),
    ("itl", "p95", "p95"),
    ("tpot", "p95", "TPOT p95"),
    ("e2e", "p95", "End-to-end p95"),
)
_Figures = Iterator[tuple[str, str, str]]
"""(title, remark, svg)"""
_MILLION = "usd_per_million_tokens"


def render(result: Data, comparison: Data | None = None) -> str:
    """The page of a result, with a comparison (`Comparison.model_dump(mode="json")`) where one is given."""
    return page(
        "bench.html.j2",
        result=result,
        state=_state(result),
        slo=slo_words(result["slo"]),
        findings=findings(result),
        doubts=doubts(result),
        headlines=headlines(result),
        **parts(result),
        timelines=list(_timelines(result, _colours(result))),
        clients=list(_clients(result)),
        comparison=view(comparison) if comparison else None,
        created=moment(result["created"]),
    )


def _clients(result: Data) -> Iterator[tuple[Data, str, Data]]:
    """(cell, its load, how the client fared)."""
    for cell in _ordered(measured(result), _colours(result)):
        if cell["summary"]["client"]:
            yield cell, load(cell), cell["summary"]["client"]


def parts(result: Data) -> dict[str, Any]:
    """The charts of each workload and the table of all cells, as `bench_parts.html.j2` shows them."""
    colours = _colours(result)
    return {
        "colours": colours,
        "groups": [_group(result, workload, colours, place) for place, workload in enumerate(workloads(result))],
        "columns": [title for _, _, title in _COLUMNS],
        "table": {workload: _rows(result, workload, colours) for workload in workloads(result)},
    }


def _colours(result: Data) -> dict[str, int]:
    names = dict.fromkeys(
        [target["name"] for target in result["targets"]] + [cell["target"] for cell in result["cells"]]
    )
    return {name: place for place, name in enumerate(names)}


def _state(result: Data) -> str:
    failed = sum(cell["state"] == "failed" for cell in result["cells"])
    return f"{failed} of {len(result['cells'])} cells failed" if failed else f"{len(result['cells'])} cells"


def headlines(result: Data) -> list[tuple[str, str, str]]:
    """The few numbers that sum the result up: (label, value, where)."""
    cells = [cell for cell in measured(result) if cell["summary"]["succeeded"]]
    if not cells:
        return []
    most = max(cells, key=lambda cell: cell["summary"]["output_tokens_per_s"])
    found = [("Most output", f"{number(most['summary']['output_tokens_per_s'])} tokens/s", _where(most))]
    for name, label in (("ttft", "Lowest TTFT p95"), ("itl", "Lowest ITL p95")):
        having = [cell for cell in cells if name in cell["summary"]["latencies"]]
        if having:
            least = min(having, key=lambda cell: cell["summary"]["latencies"][name]["p95"])
            found.append((label, duration(least["summary"]["latencies"][name]["p95"]), _where(least)))
    good = [cell for cell in cells if cell["summary"]["goodput_per_s"] is not None]
    if good:
        best = max(good, key=lambda cell: cell["summary"]["goodput_per_s"])
        found.append(("Most goodput", f"{number(best['summary']['goodput_per_s'])} req/s", _where(best)))
    priced = [cell for cell in cells if cell["summary"][_MILLION] is not None]
    if priced:
        cheap = min(priced, key=lambda cell: cell["summary"][_MILLION])
        found.append(("Lowest cost per million tokens", f"${number(cheap['summary'][_MILLION])}", _where(cheap)))
    return found


def _where(cell: Data) -> str:
    return f"{cell['target']}, {load(cell)}"


def _group(result: Data, workload: str, colours: Mapping[str, int], place: int) -> dict[str, Any]:
    """The charts of one workload, as (title, remark, svg)."""
    cells = [cell for cell in measured(result, workload) if cell["summary"]["succeeded"]]
    return {
        "workload": workload,
        "curves": list(_curves(result, cells, colours, f"w{place}")),
        "loads": list(_over_load(result, cells, colours, f"w{place}")),
        "distributions": list(_distributions(cells, colours, f"w{place}")),
    }


def _curves(result: Data, cells: Sequence[Data], colours: Mapping[str, int], prefix: str) -> _Figures:
    for name, title in _TAILS:
        lines = [
            Line(colours[target], points, dashed=mode == "open")
            for target, mode, found in _series(cells)
            if (points := [_tail(cell, name) for cell in found if name in cell["summary"]["latencies"]])
        ]
        limit = result["slo"].get(name) if result["slo"] else None
        if lines:
            labels = {"x": "output tokens/s", "y": f"{title} p95, ms"}
            drawn = charts.curves(f"{prefix}-{name}", lines, limit=None if limit is None else 1000 * limit, **labels)
            yield f"{title} p95", "over output tokens/s; right and low is better", drawn


def _series(cells: Sequence[Data]) -> Iterator[tuple[str, str, list[Data]]]:
    """(target, mode, its cells by load)."""
    for target in dict.fromkeys(cell["target"] for cell in cells):
        for mode in ("closed", "open"):
            found = [cell for cell in cells if cell["target"] == target and cell["mode"] == mode and _amount(cell)]
            if found:
                yield target, mode, sorted(found, key=_amount)


def _amount(cell: Data) -> float:
    return float((cell["rate"] if cell["mode"] == "open" else cell["concurrency"]) or 0)


def _tail(cell: Data, name: str) -> Point:
    summary, spread = cell["summary"], cell["summary"]["latencies"][name]
    interval = spread["intervals"].get("p95")
    return Point(
        x=summary["output_tokens_per_s"],
        y=1000 * spread["p95"],
        label=_short_load(cell),
        x_interval=summary["intervals"].get("output_tokens_per_s"),
        y_interval=(1000 * interval[0], 1000 * interval[1]) if interval else None,
    )


def _short_load(cell: Data) -> str:
    return f"{cell['rate']:g}/s" if cell["mode"] == "open" else str(cell["concurrency"])


def _over_load(result: Data, cells: Sequence[Data], colours: Mapping[str, int], prefix: str) -> _Figures:
    share = result["slo"]["share"] if result["slo"] else None
    for name, title, y, limit in (
        ("goodput", "Goodput", "requests within the SLO", share),
        (_MILLION, "Cost per million output tokens", "USD", None),
    ):
        for mode, x in (("open", "offered requests/s"), ("closed", "concurrent streams")):
            lines = [
                Line(colours[target], points)
                for target, found_mode, found in _series(cells)
                if found_mode == mode and (points := list(_values(found, name)))
            ]
            if lines:
                drawing = f"{prefix}-{name}-{mode}"
                drawn = charts.over_load(drawing, lines, x=x, y=y, percent=name == "goodput", limit=limit)
                yield title, f"over {x}", drawn


def _values(cells: Sequence[Data], name: str) -> Iterator[Point]:
    for cell in cells:
        if cell["summary"][name] is not None:
            yield Point(x=_amount(cell), y=cell["summary"][name], label="")


def _distributions(cells: Sequence[Data], colours: Mapping[str, int], prefix: str) -> _Figures:
    ordered = [cell for mode in ("closed", "open") for cell in sorted(cells, key=_amount) if cell["mode"] == mode]
    for name, title in _TAILS[:2]:
        rows = [
            Distribution(load(cell), colours[cell["target"]], cell["summary"]["latencies"][name]["quantiles"])
            for cell in ordered
            if len(cell["summary"]["latencies"].get(name, {}).get("quantiles", [])) == 101
        ]
        if rows:
            yield title, "by load", charts.distributions(f"{prefix}-{name}-spread", rows, x=f"{title}, ms")


def _rows(result: Data, workload: str, colours: Mapping[str, int]) -> list[dict[str, Any]]:
    """Cells as the table shows them: by target, closed before open, by load."""
    cells = [cell for cell in result["cells"] if cell["workload"] == workload]
    ordered = _ordered(cells, colours)
    return [{"cell": cell, "load": load(cell), "summary": cell["summary"], **_figures(cell)} for cell in ordered]


def _ordered(cells: Sequence[Data], colours: Mapping[str, int]) -> list[Data]:
    names = list(dict.fromkeys(cell["workload"] for cell in cells))
    key = {name: place for place, name in enumerate(names)}
    return sorted(cells, key=lambda cell: (key[cell["workload"]], colours[cell["target"]], cell["mode"], _amount(cell)))


def _figures(cell: Data) -> dict[str, Any]:
    summary = cell["summary"]
    if not summary:
        return {"latencies": [], "rate": None, "notes": []}
    return {
        "latencies": [_latency(summary["latencies"].get(name), share) for name, share, _ in _COLUMNS],
        "rate": _with_interval(summary["output_tokens_per_s"], summary["intervals"].get("output_tokens_per_s"), 1),
        "notes": list(_notes(summary)),
    }


def _latency(spread: Data | None, share: str) -> tuple[str, str]:
    """A latency and its interval, both in the latency's own unit."""
    if spread is None:
        return "–", ""
    interval = spread["intervals"].get(share) if share == "p95" else None
    value = spread[share]
    factor = 1 if value >= 1 else 1e3 if value >= 1e-3 else 1e6
    return duration(value), _with_interval(value, interval, factor)[1] if value < 60 else ""


def _with_interval(value: float, interval: Sequence[float] | None, factor: float) -> tuple[str, str]:
    if interval is None:
        return number(value), ""
    return number(value), f"{number(factor * interval[0])} – {number(factor * interval[1])}"


def _notes(summary: Data) -> Iterator[tuple[str, str]]:
    """(kind of badge, words)."""
    if summary["client"] and summary["client"]["limited"]:
        yield "bad", "client-limited"
    if summary["steady"] is False:
        yield "warn", "not steady"
    for kind, count in summary["errors"].items():
        yield "warn", f"{count} {kind}"


def _timelines(result: Data, colours: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    for cell in _ordered(measured(result), colours):
        panels = list(_panels(cell["summary"]))
        quantiles = {
            title: spread["quantiles"]
            for name, title in (*_TAILS, ("e2e", "end-to-end"))
            if len((spread := cell["summary"]["latencies"].get(name, {})).get("quantiles", [])) == 101
        }
        colour = colours[cell["target"]]
        if panels or quantiles:
            yield {
                "cell": cell,
                "load": load(cell),
                "timeline": strips.timeline(colour, panels) if panels else None,
                "cumulative": strips.cumulative(colour, quantiles) if quantiles else None,
            }


def _panels(summary: Data) -> Iterator[Panel]:
    seconds, engine = summary["timeline"], summary["engine"]
    times = [second["t"] for second in seconds]
    if len(times) > 1:
        steps = [after - before for before, after in itertools.pairwise(times)]
        steps.append(steps[-1])
        yield Panel("Output tokens/s", {"tokens/s": (times, _per_s(seconds, "output_tokens", steps))})
        rates = {name: (times, _per_s(seconds, name, steps)) for name in ("sent", "ended")}
        yield Panel("Requests/s", rates)
        ttft = {share: (times, _scaled(seconds, f"ttft_{share}", 1000)) for share in ("p50", "p95")}
        yield Panel("TTFT, ms", ttft)
        if any(second["errors"] for second in seconds):
            yield Panel("Errors/s", {"errors": (times, _per_s(seconds, "errors", steps))})
        yield Panel("Requests: in flight here, and in the engine", _requests(seconds, engine))
    if any(sample["kv_cache_usage"] is not None for sample in engine):
        usage = _scaled(engine, "kv_cache_usage", 1)
        yield Panel("KV cache in use", {"share": ([sample["t"] for sample in engine], usage)}, percent=True)


def _requests(seconds: Sequence[Data], engine: Sequence[Data]) -> dict[str, Points]:
    lines: dict[str, Points] = {"in flight": ([second["t"] for second in seconds], _scaled(seconds, "in_flight", 1))}
    for name in ("running", "waiting"):
        values = _scaled(engine, name, 1)
        if any(value is not None for value in values):
            lines[name] = ([sample["t"] for sample in engine], values)
    return lines


def _per_s(seconds: Sequence[Data], name: str, steps: Sequence[float]) -> list[float | None]:
    return [second[name] / step if step else None for second, step in zip(seconds, steps, strict=True)]


def _scaled(samples: Sequence[Data], name: str, factor: float) -> list[float | None]:
    return [None if sample[name] is None else factor * sample[name] for sample in samples]
