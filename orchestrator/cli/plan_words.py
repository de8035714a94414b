"""Predictions as a few characters: `12 min (8-20)`, `$6.40 (3.10-12.00)`, `1.2k`."""

from collections.abc import Callable
from typing import NamedTuple

from orchestrator.planner.estimate import Estimate, Unknown


class Scale(NamedTuple):
    """How a number and the ends of its interval are written."""

    before: str
    number: Callable[[float], str]
    after: str


Show = Callable[[float], Scale]


def text(value: float, show: Show) -> str:
    """One number with its unit."""
    scale = show(value)
    return f"{scale.before}{scale.number(value)}{scale.after}"


def interval(found: Estimate | Unknown | None, show: Show) -> str:
    """`12 min (8-20)`, ends in the unit of the middle; `> 3 min` where only the least is certain, `?`: nothing."""
    if isinstance(found, Estimate):
        return spread(found.value, found.low, found.high, show)
    return f"> {text(found.low, show)}" if found is not None and found.low else "?"


def middle(found: Estimate | Unknown | None, show: Show) -> str:
    """Without the interval, for narrow screens."""
    return text(found.value, show) if isinstance(found, Estimate) else interval(found, show)


def spread(value: float, low: float, high: float, show: Show) -> str:
    """The middle with its ends."""
    number = show(value).number
    ends = f" ({number(low)}-{number(high)})" if number(low) != number(high) else ""
    return text(value, show) + ends


def seconds(value: float) -> Scale:
    """In the unit that people use."""
    for factor, unit in ((3600, " h"), (60, " min"), (1, " s")):
        if value >= 1.5 * factor or (factor == 1 and value >= 1):
            return Scale("", _over(factor), unit)
    return Scale("", lambda amount: _digits(amount * 1000), " ms")


def money(value: float) -> Scale:
    """Dollars, to the cent where cents matter."""
    if value >= 100:
        return Scale("$", lambda amount: f"{amount:,.0f}", "")
    if value < 0.01:
        return Scale("", lambda _: "<$0.01", "")
    return Scale("$", lambda amount: f"{amount:.2f}", "")


def amount(value: float) -> Scale:
    """`950`, `1.2k`, `3.4M`, `1.5B`."""
    for factor, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= factor * 0.9995:
            return Scale("", _over(factor), unit)
    return Scale("", _digits, "")


def per_second(value: float) -> Scale:
    """`1.2k/s`."""
    found = amount(value)
    return found._replace(after=f"{found.after}/s")


def short(reason: str) -> str:
    """A reason in one line."""
    return " ".join(reason.split())


def _over(factor: float) -> Callable[[float], str]:
    return lambda amount: _digits(amount / factor)


def _digits(value: float) -> str:
    """Two digits that matter below 10, whole numbers above."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
