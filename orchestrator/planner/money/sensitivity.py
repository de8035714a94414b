"""How far each assumption moves the comparison: its low and its high end, all else as it is (a tornado). Pure; USD."""

import math
from collections.abc import Mapping

from orchestrator.catalog.assumptions import Assumption
from orchestrator.config import Model
from orchestrator.planner.money import tco
from orchestrator.planner.money.break_even import break_even
from orchestrator.planner.money.fleet import Values


class Swing(Model):
    """What one assumption does between the ends of its range."""

    assumption: str
    """Such as staff.run_fte."""
    low: float
    """One end."""
    high: float
    """The other."""
    saving_at_low: float
    """API less self-hosting over the years, USD, at the low end; negative: self-hosting is dearer."""
    saving_at_high: float
    """At the high end."""
    break_even_at_low: float | None
    """Tokens a month from which self-hosting is cheaper, running costs; None: at no load."""
    break_even_at_high: float | None
    """At the high end."""
    flips: bool
    """Whether the cheaper of the two changes within the range."""

    @property
    def width(self) -> float:
        """USD between the ends."""
        return abs(self.saving_at_high - self.saving_at_low)


def saving(v: Values, years: int) -> float:
    """USD that self-hosting saves over so many years against the API; negative: it costs more."""
    return tco.over_years("api", v, years) - tco.over_years("self-hosted", v, years)


def swings(assumptions: Mapping[str, Assumption], v: Values, years: int) -> list[Swing]:
    """Of every assumption with a range, the widest first."""
    now = saving(v, years)
    ranged = (a for a in assumptions.values() if a.low is not None and a.high is not None and a.low < a.high)
    found = [_swing(a, v, years, now) for a in ranged]
    return sorted(found, key=lambda swing: (-swing.width, swing.assumption))


def _swing(assumption: Assumption, v: Values, years: int, now: float) -> Swing:
    ends = [float(end) for end in (assumption.low, assumption.high) if end is not None]
    there = [{**v, assumption.id: end} for end in ends]
    savings = [saving(values, years) for values in there]
    points = [break_even(values).first for values in there]
    return Swing(
        assumption=assumption.id,
        low=ends[0],
        high=ends[1],
        saving_at_low=savings[0],
        saving_at_high=savings[1],
        break_even_at_low=points[0],
        break_even_at_high=points[1],
        flips=min(*savings, now) < 0 < max(*savings, now),
    )


def interval(found: list[Swing], now: float) -> tuple[float, float]:
    """(low, high) of the saving when the assumptions vary independently: the root of the sum of squares, each way."""
    down = math.sqrt(sum(min(0.0, s.saving_at_low - now, s.saving_at_high - now) ** 2 for s in found))
    up = math.sqrt(sum(max(0.0, s.saving_at_low - now, s.saving_at_high - now) ** 2 for s in found))
    return now - down, now + up


def matters(assumption: Assumption, v: Values, years: int) -> bool:
    """Whether another value would change any bill or the break-even; otherwise it does not apply to this case."""
    here = _results(v, years)
    others = [assumption.low, assumption.high, _other(assumption, v[assumption.id])]
    return any(_results({**v, assumption.id: other}, years) != here for other in others if other is not None)


def _other(assumption: Assumption, value: float) -> float:
    if math.isinf(value):
        return 1.0
    step = 1.0 if assumption.whole else 0.1 * value + 0.01
    return value + step if value + step <= assumption.most else value - min(step, value - assumption.at_least)


def _results(v: Values, years: int) -> tuple[object, ...]:
    return (*(tco.over_years(way, v, years) for way in tco.WAYS), break_even(v))
