"""Small plots of one cell as inline SVG, written by hand: a report has some for each of its cells, and matplotlib
takes a quarter of a second for one.

Colours are the page's variables and text is in its font, as in charts.py.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

Values = Sequence[float | None]
Points = tuple[Sequence[float], Values]
_WIDTH, _LEFT, _RIGHT = 960.0, 62.0, 14.0
_HEIGHT, _TITLE, _TICKS = 66.0, 22.0, 34.0
_STROKES = ('stroke="var(--s{colour})" stroke-width="1.9"', 'stroke="var(--muted)" stroke-width="1.3"',
            'stroke="var(--muted)" stroke-width="1.3" stroke-dasharray="2 3"')  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """One strip of a timeline: lines by their names, each with its times and values; the first is emphasised."""

    title: str
    lines: Mapping[str, Points]
    percent: bool = False


@dataclass(frozen=True)
class _Box:
    """A plot's place on the page and the values at its edges."""

    left: float
    top: float
    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + across * self.width, self.top + (1 - up) * self.height


def timeline(colour: int, panels: Sequence[Panel]) -> str:
    """Strips above each other over the same time, seconds from the start of the measurement."""
    times = [time for panel in panels for at, _ in panel.lines.values() for time in at]
    span = (min(times), max(max(times), min(times) + 1e-9))
    parts: list[str] = []
    for place, panel in enumerate(panels):
        top = _TITLE + place * (_HEIGHT + _TITLE)
        values = [value for _, found in panel.lines.values() for value in found if value is not None]
        ticks = (0.0, 0.5, 1.0) if panel.percent else _ticks(0, max(values, default=0), 3)
        box = _Box(_LEFT, top, _WIDTH - _LEFT - _RIGHT, _HEIGHT, span, (0, ticks[-1]))
        parts += [_text(_LEFT, top - 7, panel.title), *_names(panel, colour, top - 7)]
        parts += _across(box, ticks, _share if panel.percent else _plain)
        parts += _lines(box, colour, panel.lines.values())
    bottom = len(panels) * (_HEIGHT + _TITLE)
    box = _Box(_LEFT, _TITLE, _WIDTH - _LEFT - _RIGHT, bottom - _TITLE, span, (0, 1))
    parts += _down(box, [tick for tick in _ticks(*span, 8) if span[0] <= tick <= span[1]], lambda tick: f"{tick:g} s")
    return _svg(bottom + _TICKS, parts)


def cumulative(colour: int, panels: Mapping[str, Sequence[float]]) -> str:
    """Share of the values below each latency, plots beside each other; the 0th to 100th percentile in seconds."""
    step = (_WIDTH - _LEFT + 48) / len(panels)
    shares, height, parts = [share / 100 for share in range(101)], 130.0, list[str]()
    for place, (title, quantiles) in enumerate(panels.items()):
        values = [1000 * value for value in quantiles]
        logarithmic = values[1] > 0 and values[99] > 8 * values[1]
        scale: Callable[[float], float] = math.log10 if logarithmic else abs
        low = values[1] if logarithmic else min(0.0, values[0])
        shown = [max(value, low) for value in values]
        span = (scale(low), max(scale(shown[-1]), scale(low) + 1e-9))
        box = _Box(_LEFT + place * step, _TITLE, step - 62, height, span, (0, 1))
        ticks = _powers(low, shown[-1]) if logarithmic else _ticks(low, shown[-1], 4)
        parts.append(_text(box.left, _TITLE - 7, f"{title}, ms"))
        parts += _across(box, (0, 0.5, 1), _share)
        parts += _down(box, [scale(tick) for tick in ticks if low <= tick <= shown[-1]], _inverse(logarithmic))
        parts += _lines(box, colour, [([scale(value) for value in shown], shares)])
    return _svg(_TITLE + height + _TICKS, parts)


def _inverse(logarithmic: bool) -> Callable[[float], str]:
    return (lambda tick: _plain(10**tick)) if logarithmic else _plain


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers that enclose low..high."""
    rough = max(high - low, 1e-9) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(unit * power for unit in (1, 2, 5, 10) if unit * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def _powers(low: float, high: float) -> list[float]:
    """1, 2, 5 in each decade, or 1 and 3 where there are many."""
    units = (1, 2, 5) if high / low < 20 else (1, 3) if high / low < 300 else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [unit * 10.0**decade for decade in decades for unit in units]


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"


def _across(box: _Box, ticks: Sequence[float], label: Callable[[float], str]) -> Iterator[str]:
    for tick in ticks:
        _, y = box.at(box.x[0], tick)
        yield f'<path d="M{box.left:.1f} {y:.1f}h{box.width:.1f}" stroke="var(--line)"/>'
        yield _text(box.left - 7, y + 4, label(tick), "end")


def _down(box: _Box, ticks: Sequence[float], label: Callable[[float], str]) -> Iterator[str]:
    for tick in ticks:
        x, _ = box.at(tick, box.y[0])
        yield f'<path d="M{x:.1f} {box.top + box.height:.1f}v5" stroke="var(--muted)"/>'
        yield _text(x, box.top + box.height + 19, label(tick), "middle")


def _lines(box: _Box, colour: int, lines: Iterable[Points]) -> Iterator[str]:
    for (times, values), stroke in zip(lines, _STROKES, strict=False):
        path, pen = "", "M"
        for time, value in zip(times, values, strict=True):
            if value is None:
                pen = "M"
                continue
            x, y = box.at(time, value)
            path, pen = f"{path}{pen}{x:.1f} {y:.1f}", "L"
        if path:
            yield f'<path d="{path}" fill="none" stroke-linejoin="round" {stroke.format(colour=colour % 8)}/>'


def _names(panel: Panel, colour: int, y: float) -> Iterator[str]:
    """What the lines are, at the right, in the order of their drawing."""
    if len(panel.lines) < 2:
        return
    x = _WIDTH - _RIGHT
    for name, stroke in reversed(list(zip(panel.lines, _STROKES, strict=False))):
        yield _text(x, y, name, "end")
        x -= 7 * len(name) + 8
        yield f'<path d="M{x - 20:.0f} {y - 4:.0f}h18" {stroke.format(colour=colour % 8)}/>'
        x -= 34


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(height: float, parts: Sequence[str]) -> str:
    return f'<svg class="strips" viewBox="0 0 {_WIDTH:g} {height:g}" role="img">{"".join(parts)}</svg>'
