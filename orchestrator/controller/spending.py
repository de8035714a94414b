"""What a running run has used of its budget. Time counts while the run is running, over all its resumptions."""

from collections.abc import Callable, Iterable

from orchestrator.documents import scalar
from orchestrator.errors import BudgetError, InputError
from orchestrator.planner.forecast import BudgetForecast, Price
from orchestrator.planner.money import budget
from orchestrator.planner.money.budget import Budget
from orchestrator.planner.plan import Plan
from orchestrator.store.records import ENDED, Event

Clock = Callable[[], float]
PREFIX = "budget."
_PAUSES = {f"run.{state}" for state in (*ENDED, "queued")}


class Watch:
    """Judges a run again and again while it goes on."""

    def __init__(self, plan: Plan, events: Iterable[Event], clock: Clock) -> None:
        self._clock = clock
        found = plan.forecast
        self._budget = found.budget.budget if found and found.budget else None
        price = found.price if found else None
        self._usd_per_hour = price.usd_per_hour if isinstance(price, Price) else None
        now = clock()
        self._started = now - lasted(events, now)

    def reason(self) -> str | None:
        """Why the run must stop now, or None."""
        if self._budget is None:
            return None
        return budget.exceeded(self._budget, self._started, self._clock(), self._usd_per_hour)

    def enforce(self, run: str) -> None:
        """Raises BudgetError when the run has used up its budget."""
        reason = self.reason()
        if reason is not None:
            raise BudgetError(reason, next_step=f"raise it to go on: `orch resume {run} {self._more()}`")

    def _more(self) -> str:
        """The limits that are set, doubled, as they are typed."""
        assert self._budget is not None, "only a budget is used up"
        limits = (("max_cost_usd", self._budget.max_cost_usd), ("max_duration", self._budget.max_duration))
        return " ".join(
            f"{PREFIX}{name}={str(type(limit)(2 * limit)).replace('$', '').replace(' ', '')}"
            for name, limit in limits
            if limit is not None
        )


def lasted(events: Iterable[Event], now: float) -> float:
    """Seconds that a run was running until `now`, from its events; while it waited, or had ended, it was not."""
    total, since = 0.0, None
    for event in events:
        if event.kind == "run.running" and since is None:
            since = event.time
        elif event.kind in _PAUSES and since is not None:
            total, since = total + max(0.0, event.time - since), None
    return total + (max(0.0, now - since) if since is not None else 0.0)


def raised(plan: Plan, overrides: list[str]) -> Plan:
    """The plan with other limits, given as `budget.max_cost_usd=60`. Raises InputError for anything else."""
    from pydantic import ValidationError

    if plan.forecast is None:
        raise InputError("the run was planned without a forecast, and has no budget", next_step="`orch run RECIPE`")
    known = plan.forecast.budget or BudgetForecast(budget=Budget())
    values = known.budget.model_dump()
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals or not name.startswith(PREFIX) or name.removeprefix(PREFIX) not in values:
            raise InputError(
                f"{text!r}: only the budget of a run can be changed when it is resumed",
                next_step="budget.max_cost_usd=60 or budget.max_duration=8h; for anything else start a new run, which"
                " reuses what stands",
            )
        values[name.removeprefix(PREFIX)] = scalar(value)
    try:
        limits = Budget.model_validate(values)
    except ValidationError as error:
        raise InputError("; ".join(detail["msg"].removeprefix("Value error, ") for detail in error.errors())) from error
    forecast = plan.forecast.model_copy(update={"budget": known.model_copy(update={"budget": limits})})
    return plan.model_copy(update={"forecast": forecast})
