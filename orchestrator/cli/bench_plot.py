"""The latency-throughput curve on a terminal: one line of each target, TTFT p95 over output tokens/s."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

_LOOKS = (("●", "blue+"), ("■", "yellow"), ("▲", "green+"), ("◆", "magenta+"), ("○", "red+"), ("□", "cyan+"))
"""Mark and colour of each line; the marks alone tell them apart where there is no colour."""
_HEIGHT = 18
_UNITS = (1, 2, 5)


def curves(result: Mapping[str, Any], workload: str, width: int) -> str | None:
    """The plot, colours as escape codes; None where no target has two cells that can be drawn."""
    import plotext

    lines = _lines(result, workload)
    if not lines:
        return None
    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(min(width, 100), _HEIGHT)
    looks = dict(zip(lines, _LOOKS * len(lines), strict=False))
    for name, points in lines.items():
        mark, colour = looks[name]
        x, y = [point[0] for point in points], [math.log10(point[1]) for point in points]
        figure.draw(figure.signal(x, y, marker=plotext.marker("braille", pixel=colour)).lines())
        figure.draw(figure.signal(x, y, marker=plotext.marker(mark, pixel=colour)))
    _rule(figure, [point for points in lines.values() for point in points])
    legend = "   ".join(
        f"{plotext.colorize(mark, pixel=colour).string()} {name}" for name, (mark, colour) in looks.items()
    )
    return f"TTFT p95, ms (logarithmic) over output tokens/s:   {legend}\n{figure.build().string()}"


def _lines(result: Mapping[str, Any], workload: str) -> dict[str, list[tuple[float, float]]]:
    """Target -> (tokens/s, TTFT p95 in ms) by load; the open loop apart."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for cell in result["cells"]:
        summary = cell["summary"]
        ttft = summary["latencies"].get("ttft") if summary and cell["workload"] == workload else None
        if ttft and ttft["p95"] > 0:
            name = cell["target"] + (" (open loop)" if cell["mode"] == "open" else "")
            load = cell["rate"] if cell["mode"] == "open" else cell["concurrency"]
            found.setdefault(name, []).append((load or 0, summary["output_tokens_per_s"], 1000 * ttft["p95"]))
    return {name: [point[1:] for point in sorted(points)] for name, points in found.items() if len(points) > 1}


def _rule(figure: Any, points: Sequence[tuple[float, float]]) -> None:
    low, high = min(point[1] for point in points), max(point[1] for point in points)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = [unit * 10.0**decade for decade in decades for unit in (_UNITS if high < 50 * low else (1, 3))]
    shown = [step for step in steps if min(low, high / 2) / 1.1 <= step <= 1.1 * high]
    figure.ruler("y", "left").lim(math.log10(min(low, high / 2) / 1.1), math.log10(high * 1.1))
    figure.ruler("y", "left").ticks(
        [math.log10(step) for step in shown], [f"{step:,.0f}" if step >= 1 else f"{step:.2g}" for step in shown]
    )
    most = max(point[0] for point in points)
    step = next(
        unit * power for power in (0.1, 1, 10, 100, 1e3, 1e4, 1e5, 1e6) for unit in _UNITS if unit * power * 5 > most
    )
    across = [step * place for place in range(6) if step * place <= most]
    figure.ruler("x", "lower").ticks(across, [f"{value:,.0f}" if step >= 1 else f"{value:.2g}" for value in across])
    figure.ruler("x", "lower").lim(0, most * 1.02)
