"""Monthly cost over tokens per month on a terminal: one line for each way, both axes logarithmic."""

import math
from collections.abc import Sequence

from orchestrator.cli.cost_words import tokens
from orchestrator.planner.money.comparison import Comparison
from orchestrator.planner.money.tco import Way

_LOOKS: dict[Way, tuple[str, str]] = {"self-hosted": ("■", "blue+"), "api": ("●", "red+"), "hybrid": ("▲", "green+")}
"""Mark and colour of each line; the marks alone tell them apart where there is no colour."""
_HEIGHT = 20


def curves(found: Comparison, width: int, *, colour: bool) -> str:
    """The plot; colours as escape codes where the terminal shows them."""
    import plotext

    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(min(width, 100), _HEIGHT)
    x = [math.log10(point.tokens_per_month) for point in found.curve]
    lines = {way: [math.log10(max(point.usd[way], 1.0)) for point in found.curve] for way in _LOOKS}
    for way, y in lines.items():
        mark, pixel = _LOOKS[way]
        figure.draw(figure.signal(x, y, marker=plotext.marker("braille", pixel=pixel)).lines())
        some = list(range(3, len(x), 8))
        figure.draw(figure.signal([x[i] for i in some], [y[i] for i in some], marker=plotext.marker(mark, pixel=pixel)))
    heights = [value for y in lines.values() for value in y]
    here = math.log10(found.tokens_per_month)
    figure.draw(figure.signal([here, here], [min(heights), max(heights)], marker=plotext.marker("┊")).lines())
    _rules(figure, x, heights)
    legend = "   ".join(
        f"{plotext.colorize(mark, pixel=pixel).string() if colour else mark} {way}"
        for way, (mark, pixel) in _LOOKS.items()
    )
    drawn = figure.build().string().rstrip()
    return f"USD a month over tokens a month:   {legend}   ┊ this load\n{drawn if colour else _plain(drawn)}"


def _plain(text: str) -> str:
    import re

    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _rules(figure: object, x: Sequence[float], y: Sequence[float]) -> None:
    for name, side, values, words in (("x", "lower", x, tokens), ("y", "left", y, lambda usd: f"{usd:,.0f}")):
        rule = figure.ruler(name, side)  # type: ignore[attr-defined]
        rule.lim(min(values), max(values))
        marks = _marks(min(values), max(values))
        rule.ticks(marks, [words(10**mark) for mark in marks])


def _marks(low: float, high: float) -> list[float]:
    """Logarithms of 1, 2, 5, 10 ... between the ends; of 1, 10, 100 where they are many."""
    units = (1, 2, 5) if high - low < 2.5 else (1, 3) if high - low < 4 else (1,)
    decades = range(math.floor(low), math.ceil(high) + 1)
    found = [decade + math.log10(unit) for decade in decades for unit in units]
    return [mark for mark in found if low <= mark <= high]
