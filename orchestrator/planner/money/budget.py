"""What a run may cost and last at most: judged before it starts, and again while it runs. Pure; money in US dollars."""

from collections.abc import Callable

from orchestrator.config import Model
from orchestrator.planner.estimate import Estimate, Unknown
from orchestrator.units import Seconds, Usd


class Budget(Model):
    """The `budget` section: limits of one run."""

    max_cost_usd: Usd | None = None
    """The most that the run's accelerators may cost."""
    max_duration: Seconds | None = None
    """The longest that the run may take."""


class Judgement(Model):
    """What a budget says about a prediction."""

    obstacles: list[str] = []
    """Why the run must not start; empty when it may."""
    warnings: list[str] = []
    """What may still go wrong: the far end of the prediction is over, or there is no prediction."""


def judge(budget: Budget, cost: Estimate | Unknown, time: Estimate | Unknown) -> Judgement:
    """Over the limit at the middle refuses; over it only at the high end warns. `cost` in USD, `time` in s."""
    asked = (
        ("max_cost_usd", budget.max_cost_usd, cost, "the run costs", _usd),
        ("max_duration", budget.max_duration, time, "the run takes", _duration),
    )
    found: dict[str, list[str]] = {"obstacles": [], "warnings": []}
    for name, limit, predicted, words, show in asked:
        if limit is not None:
            for kind, text in _against(name, float(limit), predicted, words, show):
                found[kind].append(text)
    return Judgement(**found)


def _against(
    name: str, limit: float, predicted: Estimate | Unknown, words: str, show: Callable[[float], str]
) -> list[tuple[str, str]]:
    allowed = f"budget.{name} allows {show(limit)}"
    if isinstance(predicted, Unknown):
        if predicted.low is not None and predicted.low > limit:
            return [("obstacles", f"{words} at least {show(predicted.low)}; {allowed}")]
        return [
            ("warnings", f"{allowed}, and it cannot be said beforehand whether that is enough ({predicted.reason})")
        ]
    between = f"between {show(predicted.low)} and {show(predicted.high)}"
    if predicted.value > limit:
        return [("obstacles", f"{words} about {show(predicted.value)}, {between}; {allowed}")]
    if predicted.high > limit:
        return [("warnings", f"{words} about {show(predicted.value)}, but up to {show(predicted.high)}; {allowed}")]
    return []


def spent(started_at: float, now: float, usd_per_hour: float) -> float:
    """USD that a run has cost so far; times in s since the epoch. A clock that went backwards has spent nothing."""
    return max(0.0, now - started_at) / 3600 * usd_per_hour


def exceeded(budget: Budget, started_at: float, now: float, usd_per_hour: float | None) -> str | None:
    """Why a running run must stop now, or None. Without a price only the duration can be enforced."""
    lasted = max(0.0, now - started_at)
    if budget.max_duration is not None and lasted > budget.max_duration:
        return f"the run has lasted {_duration(lasted)}; budget.max_duration is {_duration(float(budget.max_duration))}"
    if budget.max_cost_usd is not None and usd_per_hour is not None:
        cost = spent(started_at, now, usd_per_hour)
        if cost > budget.max_cost_usd:
            return f"the run has cost {_usd(cost)}; budget.max_cost_usd is {_usd(float(budget.max_cost_usd))}"
    return None


def seconds_left(budget: Budget, started_at: float, now: float, usd_per_hour: float | None) -> float | None:
    """Seconds until `exceeded` would speak, at least 0, so that a timer can wait for it; None: never."""
    ends = []
    if budget.max_duration is not None:
        ends.append(started_at + float(budget.max_duration))
    if budget.max_cost_usd is not None and usd_per_hour:
        ends.append(started_at + float(budget.max_cost_usd) / usd_per_hour * 3600)
    return max(0.0, min(ends) - now) if ends else None


def _usd(amount: float) -> str:
    return f"${amount:,.2f}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours else f"{rest} min"
