"""The charts of a benchmark's report that compare its cells: curves over throughput, over the load, and distributions.

Every thing that is compared (a target) has a number, which is its colour in all charts of a page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.report.charts import BAD, BASE, GOOD, INK, MUTED, SERIES, chart

Interval = tuple[float, float]
_CURVE = (4.9, 3.3)


@dataclass(frozen=True)
class Point:
    """One cell in a plane."""

    x: float
    y: float
    label: str
    """Its load, such as 8 or 4/s."""
    x_interval: Interval | None = None
    y_interval: Interval | None = None


@dataclass(frozen=True)
class Line:
    """The cells of one target, in the order of their load."""

    colour: int
    points: Sequence[Point]
    dashed: bool = False


def curves(name: str, lines: Sequence[Line], *, x: str, y: str, limit: float | None = None) -> str:
    """Latency over throughput with both intervals; each point says its load; `limit` is the SLO's."""

    def draw(axes: Any) -> None:
        values = [point.y for line in lines for point in line.points if point.y > 0]
        for line in lines:
            _curve(axes, line)
        _loads(axes, lines)
        if limit is not None:
            axes.axhline(limit, color=MUTED, linestyle=":", linewidth=1.3)
            axes.annotate("SLO", (1, limit), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=MUTED)
        if values and max(values) > 12 * min(values):
            axes.set_yscale("log")
            _plain_ticks(axes.yaxis)
        else:
            axes.set_ylim(0, None)
        axes.set(xlabel=x, ylabel=y)
        axes.set_xlim(0, None)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")

    return chart(name, _CURVE, draw)


def _curve(axes: Any, line: Line) -> None:
    colour, points = _colour(line.colour), line.points
    x, y = [point.x for point in points], [point.y for point in points]
    axes.plot(x, y, color=colour, linewidth=2, linestyle="--" if line.dashed else "-", marker="o", markersize=4.5)
    bars = {
        "xerr": [_reach(point.x, point.x_interval) for point in points],
        "yerr": [_reach(point.y, point.y_interval) for point in points],
    }
    reach = {axis: list(zip(*ends, strict=True)) for axis, ends in bars.items() if points}
    axes.errorbar(x, y, **reach, fmt="none", ecolor=colour, elinewidth=1, capsize=2, alpha=0.6)


def _loads(axes: Any, lines: Sequence[Line]) -> None:
    """Each point's load beside it, the highest first, left out where another is too close."""
    taken: list[tuple[float, float]] = []
    wide = max((point.x for line in lines for point in line.points), default=1) or 1
    high = max((point.y for line in lines for point in line.points), default=1) or 1
    for colour, point in [(line.colour, point) for line in lines for point in reversed(line.points)]:
        x, y = point.x / wide, point.y / high
        if all(abs(x - other[0]) > 0.09 or abs(y - other[1]) > 0.07 for other in taken):
            taken.append((x, y))
            where = {"xytext": (-3, 5), "textcoords": "offset points", "ha": "right"}
            axes.annotate(point.label, (point.x, point.y), color=_colour(colour), fontsize=8.5, **where)


def _reach(value: float, interval: Interval | None) -> Interval:
    return (0.0, 0.0) if interval is None else (max(0.0, value - interval[0]), max(0.0, interval[1] - value))


def over_load(
    name: str,
    lines: Sequence[Line],
    *,
    x: str,
    y: str,
    percent: bool = False,
    limit: float | None = None,
) -> str:
    """A value over concurrency or rate; steps are as wide as they are in a list, not in numbers."""

    def draw(axes: Any) -> None:
        loads = sorted({point.x for line in lines for point in line.points})
        place = {load: number for number, load in enumerate(loads)}
        for line in lines:
            where = [place[point.x] for point in line.points]
            values = [point.y for point in line.points]
            axes.plot(where, values, color=_colour(line.colour), linewidth=2, marker="o", markersize=4.5)
        if limit is not None:
            axes.axhline(limit, color=MUTED, linestyle=":", linewidth=1.3)
        every = 1 + (len(loads) - 1) // 7
        axes.set_xticks(range(len(loads)), [f"{load:g}" if n % every == 0 else "" for n, load in enumerate(loads)])
        axes.set(xlabel=x, ylabel=y)
        axes.set_ylim(0, 1.04 if percent else None)
        axes.margins(x=0.08)
        if percent:
            axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")

    return chart(name, (3.3, 2.2), draw)


@dataclass(frozen=True)
class Distribution:
    """One row of a figure of distributions."""

    label: str
    colour: int
    quantiles: Sequence[float]
    """The 0th to the 100th percentile, seconds."""


def distributions(name: str, rows: Sequence[Distribution], *, x: str) -> str:
    """A row each: line from the 1st to the 99th percentile, bar from the 5th to the 95th and 25th to 75th, median."""

    def draw(axes: Any) -> None:
        lowest = min((1000 * row.quantiles[5] for row in rows if row.quantiles[5] > 0), default=0.0)
        logarithmic = max(1000 * row.quantiles[99] for row in rows) > 8 * lowest > 0
        for place, row in enumerate(rows):
            least = lowest / 1.5 if logarithmic else 0.0
            colour, at = _colour(row.colour), [max(1000 * value, least) for value in row.quantiles]
            axes.hlines(place, at[1], at[99], color=colour, linewidth=1.4)
            for low, high, alpha in ((5, 95, 0.28), (25, 75, 0.55)):
                axes.barh(place, at[high] - at[low], left=at[low], height=0.62, color=colour, alpha=alpha, linewidth=0)
            axes.plot([at[50]] * 2, [place - 0.34, place + 0.34], color=INK, linewidth=1.8)
        before = [None, *(row.label for row in rows)]
        labels = ["" if row.label == last else row.label for row, last in zip(rows, before, strict=False)]
        axes.set_yticks(range(len(rows)), labels)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(x)
        if logarithmic:
            axes.set_xscale("log")
            _plain_ticks(axes.xaxis)

    return chart(name, (4.9, 0.75 + 0.26 * len(rows)), draw)


@dataclass(frozen=True)
class Difference:
    """A relative change: 0.05 is 5 % more."""

    change: float
    interval: Interval | None
    tone: str
    """good, bad or unclear."""


def differences(name: str, rows: Mapping[str, Difference]) -> str:
    """A row for each change, with its interval; zero is no change."""

    def draw(axes: Any) -> None:
        for place, row in enumerate(rows.values()):
            colour = {"good": GOOD, "bad": BAD}.get(row.tone, BASE)
            if row.interval is not None:
                axes.hlines(place, 100 * row.interval[0], 100 * row.interval[1], color=colour, linewidth=2.2)
            axes.plot([100 * row.change], [place], marker="o", color=colour, markersize=6)
        axes.axvline(0, color=MUTED, linewidth=1.2)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("change, %")
        widest = max(abs(end) for row in rows.values() for end in (row.change, *(row.interval or ())))
        axes.set_xlim(-105 * max(widest, 0.01), 105 * max(widest, 0.01))

    return chart(name, (5.2, 0.75 + 0.3 * len(rows)), draw)


def _colour(number: int) -> str:
    return SERIES[number % len(SERIES)]


def _plain_ticks(axis: Any) -> None:
    """A logarithmic axis with numbers as they are said: 50, 100, 200."""
    from matplotlib.ticker import LogLocator, NullLocator

    low, high = axis.get_data_interval()
    subs = (1, 2, 5) if high < 40 * low else (1, 3)
    axis.set_major_locator(LogLocator(base=10, subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:,.10g}")
