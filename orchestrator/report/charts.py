"""The report's charts as inline SVG, drawn by matplotlib.

Colours are CSS variables and text is text, so that a chart follows the page's light or dark theme and its font.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# matplotlib wants real colours; each of these stands for a variable of the page
_VARIABLES = {"#010101": "--ink", "#020202": "--muted", "#030303": "--line", "#040404": "--accent", "#050505": "--base"}
INK, MUTED, LINE, ACCENT, BASE = _VARIABLES
GOOD, BAD = "#060101", "#060102"
_VARIABLES |= {GOOD: "--good", BAD: "--bad"}
SERIES = tuple(f"#0602{number:02d}" for number in range(8))
"""One colour for each thing that is compared, --s0 to --s7."""
_VARIABLES |= {colour: f"--s{number}" for number, colour in enumerate(SERIES)}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "orch",
    "font.size": 10,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "text.color": INK,
    "legend.frameon": False,
}


def loss(curve: Sequence[Sequence[float]]) -> str:
    """Loss by step, from [[step, loss, ...], ...]."""

    def draw(axes: Any) -> None:
        steps, losses = [point[0] for point in curve], [point[1] for point in curve]
        axes.plot(steps, losses, color=ACCENT, linewidth=2, marker="o" if len(curve) < 3 else None)
        axes.set(xlabel="step", ylabel="loss", ylim=(0, None))

    return chart("loss", (6, 2.6), draw)


def score(
    name: str,
    values: Mapping[str, float],
    *,
    intervals: Mapping[str, Sequence[float]],
    reference: float | None = None,
    percent: bool = False,
) -> str:
    """A bar per value (base, tuned) with its (low, high) where known; `reference` is a score to beat."""
    ends = [end for interval in intervals.values() for end in interval]

    def draw(axes: Any) -> None:
        axes.barh(list(values), list(values.values()), color=[BASE, ACCENT], height=0.56)
        for place, (label, value) in enumerate(values.items()):
            if label in intervals:
                low, high = intervals[label]
                reach = [[max(0.0, value - low)], [max(0.0, high - value)]]
                axes.errorbar([value], [place], xerr=reach, color=INK, capsize=4, fmt="none")
        if reference is not None:
            axes.axvline(reference, color=MUTED, linestyle="--", linewidth=1.2)
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlim(0, max(*values.values(), *ends, reference or 0) * 1.08 or 1)
        if percent:
            axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")

    return chart(f"score-{name}", (3.7, 1.3), draw)


def parity(values: Mapping[str, Mapping[str, float]]) -> str:
    """Mean divergence per export, one point per length of the prompts; logarithmic, as exports are orders apart."""
    least = 1e-7
    names = list(values)[::-1]
    kinds = [kind for kind in dict.fromkeys(kind for points in values.values() for kind in points) if kind != "all"]

    def draw(axes: Any) -> None:
        for place, kind in enumerate(kinds or ["all"]):
            found = [(max(values[name][kind], least), name) for name in names if kind in values[name]]
            shown = {"color": SERIES[place], "s": 42, "label": kind.replace("_", " ")}
            axes.scatter([x for x, _ in found], [names.index(name) for _, name in found], **shown)
        axes.set_yticks(range(len(names)), names)
        axes.set(xscale="log", xlabel="mean KL divergence, nats", ylim=(-0.6, len(names) - 0.4))
        if kinds:
            axes.legend(ncols=len(kinds), loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)

    return chart("parity", (6, 1.0 + 0.42 * len(values)), draw)


def by_concurrency(name: str, unit: str, concurrency: Sequence[int], series: Mapping[str, Sequence[float]]) -> str:
    """Lines over the concurrency; one series alone, or that of p95, is emphasised."""

    def draw(axes: Any) -> None:
        places = range(len(concurrency))
        for label, values in series.items():
            colour = ACCENT if label == "p95" or len(series) == 1 else BASE
            line, marker = ("--", None) if label == "p99" else ("-", "o")
            axes.plot(places, values, color=colour, linewidth=2, linestyle=line, marker=marker, label=label)
        axes.set_xticks(places, [str(level) for level in concurrency])
        axes.set(xlabel="concurrent streams", ylabel=unit, ylim=(0, None))
        axes.margins(x=0.08)
        if len(series) > 1:
            axes.legend(ncols=len(series), loc="upper left", bbox_to_anchor=(0, 1.16), borderaxespad=0)

    return chart(name, (4.8, 2.7), draw)


def chart(name: str, inches: tuple[float, float], draw: Callable[[Any], None]) -> str:
    """A drawing on one pair of axes; `name` keeps its ids apart from those of the page's other charts."""
    return figure(name, inches, lambda drawn: draw(drawn.add_subplot()))


def figure(name: str, inches: tuple[float, float], draw: Callable[[Any], None]) -> str:
    """A drawing on a whole matplotlib figure."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(name, inches[0], text.getvalue())


def _inline(name: str, inches: float, svg: str) -> str:
    """The <svg> element alone, at most a fifth larger than drawn; its ids are its own on a page with other charts."""
    svg = svg[svg.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # the width follows the page; the viewBox keeps the proportions
    start = rf'<svg viewBox="\1" role="img" style="max-width: {inches * 1.2:.2f}in">'
    return re.sub(r'<svg[^>]*? viewBox="([^"]*)"[^>]*>', start, svg, count=1)
