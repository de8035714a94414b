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
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "orch",
    "font.size": 11,
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

    return _chart("loss", (7.2, 2.9), draw)


def score(
    name: str, base: float, tuned: float, *, interval: tuple[float, float] | None, reference: float | None = None
) -> str:  # fmt: skip
    """Base against tuned as two bars; `interval` belongs to the tuned score, `reference` is a score to beat."""

    def draw(axes: Any) -> None:
        axes.barh([1, 0], [base, tuned], color=[BASE, ACCENT], height=0.56)
        if interval is not None:
            low, high = interval
            axes.errorbar(
                [tuned], [0], xerr=[[max(0.0, tuned - low)], [max(0.0, high - tuned)]], color=INK, capsize=4, fmt="none"
            )
        if reference is not None:
            axes.axvline(reference, color=MUTED, linestyle="--", linewidth=1.2)
        axes.set_yticks([1, 0], ["base", "tuned"])
        axes.grid(False, axis="y")
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlim(0, max(base, tuned, *(interval or ()), reference or 0) * 1.08 or 1)

    return _chart(f"score-{name}", (3.5, 1.35), draw)


def parity(values: Mapping[str, float]) -> str:
    """Mean divergence per export."""

    def draw(axes: Any) -> None:
        names = list(values)[::-1]
        axes.barh(names, [values[name] for name in names], color=ACCENT, height=0.5)
        axes.grid(False, axis="y")
        axes.set(xlabel="mean KL divergence, nats", xlim=(0, max(values.values()) * 1.08 or 1))
        axes.locator_params(axis="x", nbins=5)

    return _chart("parity", (7.2, 0.9 + 0.45 * len(values)), draw)


def by_concurrency(name: str, unit: str, concurrency: Sequence[int], series: Mapping[str, Sequence[float]]) -> str:
    """Lines over the concurrency; the last series is the emphasised one."""

    def draw(axes: Any) -> None:
        places = range(len(concurrency))
        for number, (label, values) in enumerate(series.items()):
            last = number == len(series) - 1
            axes.plot(
                places, values, color=ACCENT if last else BASE, linewidth=2.2 if last else 1.6, marker="o",
                linestyle="-" if last or number == 0 else "--", label=label,
            )  # fmt: skip
        axes.set_xticks(places, [str(level) for level in concurrency])
        axes.set(xlabel="concurrent streams", ylabel=unit, ylim=(0, None))
        axes.margins(x=0.08)
        if len(series) > 1:
            axes.legend(ncols=len(series), loc="upper left", bbox_to_anchor=(0, 1.16), borderaxespad=0)

    return _chart(name, (4.2, 2.7), draw)


def _chart(name: str, inches: tuple[float, float], draw: Callable[[Any], None]) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure.add_subplot())
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(name, text.getvalue())


def _inline(name: str, svg: str) -> str:
    """The <svg> element alone, with variables for colours and ids that no other chart of the page has."""
    svg = svg[svg.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # the width follows the page; viewBox keeps the proportions
    return re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 role="img"', svg, count=1).replace(
        ' height="', ' data-height="', 1
    )
