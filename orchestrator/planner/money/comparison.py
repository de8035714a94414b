"""Self-hosting, a hosted API and a hybrid of both for one load: the whole comparison as one value. Pure; USD.

`compare` takes the assumptions of the case (`planner/money/case.py` puts them together) and computes everything that
`orch cost compare` prints, plots and exports.
"""

import math

from orchestrator.catalog.assumptions import Assumption, Assumptions
from orchestrator.config import Model
from orchestrator.errors import InputError
from orchestrator.planner.money import fleet, tco
from orchestrator.planner.money.break_even import BreakEven, break_even, hybrid_break_even
from orchestrator.planner.money.fleet import Values
from orchestrator.planner.money.sensitivity import Swing, interval, matters, saving, swings
from orchestrator.planner.money.tco import Way

YEARS = (1, 3)
_PER_DECADE = 16


class Item(Model):
    """One line of a bill."""

    component: str
    """Such as GPUs, serving."""
    usd: float
    """Per month, or once."""
    because: str
    """The arithmetic."""


class Bill(Model):
    """What one way costs."""

    way: Way
    """self-hosted, api or hybrid."""
    monthly: list[Item]
    """Of a month of the first year."""
    once: list[Item]
    """Before the first month."""
    usd_per_month: float
    """Sum of `monthly`."""
    usd_once: float
    """Sum of `once`."""
    usd_per_million_tokens: float
    """The month's bill over its tokens."""
    usd_over_years: dict[int, float]
    """Years -> everything, discounted."""


class OwnFleet(Model):
    """The GPUs behind a bill."""

    replicas: int
    """That share the load."""
    spare_replicas: int
    """That stand by."""
    gpus: int
    """All of them."""
    usd_per_gpu_hour: float
    """Of the mix of reserved, spot and on-demand."""
    utilisation: float | None
    """Mean load over the capacity of those that share it; None: unknown."""
    share_carried: float
    """Of the tokens; the rest goes to the API."""


class Point(Model):
    """USD per month at one load."""

    tokens_per_month: float
    """The load."""
    usd: dict[Way, float]
    """Way -> running costs."""


class Listed(Model):
    """An assumption, and whether it matters here."""

    assumption: Assumption
    """With its value in this comparison, its source and its date."""
    applies: bool
    """False: another value would change nothing here."""


class Comparison(Model):
    """Everything that `orch cost compare` says."""

    versus: str
    """The hosted model."""
    hosted: str
    """What is self-hosted, in words."""
    tokens_per_month: float
    """Input and output."""
    input_share: float
    """Of the tokens."""
    api_usd_per_million: float
    """Per million tokens of this mix."""
    api_price: str
    """Which row of the catalog, its dates and source."""
    bills: list[Bill]
    """One for each way."""
    cheapest: Way
    """Over the longest of the views."""
    own_fleet: OwnFleet
    """Of self-hosting."""
    hybrid_fleet: OwnFleet
    """Of the hybrid."""
    break_even: BreakEven
    """Self-hosted against the API, running costs."""
    break_even_amortised: BreakEven
    """The same with what is paid once spread over the longest view."""
    hybrid_break_even: float | None
    """Tokens a month from which the hybrid is cheaper than the API; None: at no load."""
    saving: float
    """What self-hosting saves over the longest view; negative: it costs more."""
    saving_interval: tuple[float, float]
    """When all assumptions vary independently over their ranges."""
    sensitivity: list[Swing]
    """Widest first."""
    curve: list[Point]
    """For a plot, by tokens per month."""
    assumptions: list[Listed]
    """Every one."""
    warnings: list[str]
    """What to mind."""


def numbers(assumptions: Assumptions) -> Values:
    """The values that the formulas read. Raises InputError where one that is needed is unknown."""
    found = {name: a.value if a.value is not None else 0.0 for name, a in assumptions.items()}
    if assumptions["serving.tokens_per_s_per_replica"].value is None:
        found["serving.tokens_per_s_per_replica"] = math.inf
    on_demand = 1 - sum(found[f"gpu.{term}_share"] for term in ("owned", "reserved", "spot"))
    if on_demand < -1e-9:
        raise InputError("gpu.owned_share, gpu.reserved_share and gpu.spot_share together are more than 1")
    needs = {
        "gpu.on_demand_usd_per_hour": on_demand > 1e-9,
        "gpu.reserved_usd_per_hour": found["gpu.reserved_share"] > 0,
        "gpu.spot_usd_per_hour": found["gpu.spot_share"] > 0,
        "owned.usd_per_gpu": found["gpu.owned_share"] > 0,
        "api.cached_usd_per_million": found["api.cache_hit_share"] > 0,
        "serving.gpus_per_replica": True,
        "workload.tokens_per_month": True,
        "workload.input_share": True,
        "api.input_usd_per_million": True,
        "api.output_usd_per_million": True,
    }
    unknown = [name for name, needed in needs.items() if needed and assumptions[name].value is None]
    if unknown:
        listed = "; ".join(f"{name}: {assumptions[name].source.removeprefix('unknown: ')}" for name in unknown)
        raise InputError(f"unknown: {listed}", next_step=f"give it: --set {unknown[0]}=...")
    if not found["workload.tokens_per_month"]:
        raise InputError("no tokens a month, nothing to compare", next_step="such as --tokens-per-month 1.5B")
    return found


def compare(
    assumptions: Assumptions, *, versus: str, hosted: str, api_price: str, warnings: list[str] | None = None
) -> Comparison:
    """The comparison. Raises InputError where a number that it needs is unknown."""
    v = numbers(assumptions)
    tokens, longest = v["workload.tokens_per_month"], max(YEARS)
    found, now = swings(assumptions, v, longest), saving(v, longest)
    bills = [bill(way, v) for way in tco.WAYS]
    return Comparison(
        versus=versus,
        hosted=hosted,
        tokens_per_month=tokens,
        input_share=v["workload.input_share"],
        api_usd_per_million=tco.blended_usd_per_million(v),
        api_price=api_price,
        bills=bills,
        cheapest=min(bills, key=lambda found: found.usd_over_years[longest]).way,
        own_fleet=own_fleet(v),
        hybrid_fleet=hybrid_fleet(v),
        break_even=break_even(v),
        break_even_amortised=break_even(v, amortise_years=longest),
        hybrid_break_even=hybrid_break_even(v),
        saving=now,
        saving_interval=interval(found, now),
        sensitivity=found,
        curve=curve(v),
        assumptions=[Listed(assumption=a, applies=matters(a, v, longest)) for a in assumptions.values()],
        warnings=warnings or [],
    )


def bill(way: Way, v: Values) -> Bill:
    """What one way costs a month, once, and over the years."""
    tokens = v["workload.tokens_per_month"]
    monthly, once = tco.monthly(way, v, tokens), tco.once(way, v)
    return Bill(
        way=way,
        monthly=[Item(**line._asdict()) for line in monthly],
        once=[Item(**line._asdict()) for line in once],
        usd_per_month=tco.total(monthly),
        usd_once=tco.total(once),
        usd_per_million_tokens=tco.total(monthly) / tokens * 1e6,
        usd_over_years={years: tco.over_years(way, v, years) for years in YEARS},
    )


def own_fleet(v: Values) -> OwnFleet:
    """Of self-hosting: it carries everything."""
    tokens = v["workload.tokens_per_month"]
    return _fleet(v, fleet.replicas(v, tokens), int(v["serving.spare_replicas"]), 1.0)


def hybrid_fleet(v: Values) -> OwnFleet:
    """Of the hybrid: what is above its capacity goes to the API."""
    tokens = v["workload.tokens_per_month"]
    count = tco.hybrid_replicas(v, tokens)
    return _fleet(v, count, int(v["hybrid.spare_replicas"]), fleet.share_carried(v, tokens, count))


def _fleet(v: Values, count: int, spare: int, share: float) -> OwnFleet:
    return OwnFleet(
        replicas=count,
        spare_replicas=spare,
        gpus=int((count + spare) * v["serving.gpus_per_replica"]),
        usd_per_gpu_hour=tco.gpu_price(v),
        utilisation=fleet.utilisation(v, v["workload.tokens_per_month"] * share, count),
        share_carried=share,
    )


def curve(v: Values) -> list[Point]:
    """USD per month over the loads that matter: around the load that was asked and around the break-even."""
    tokens = v["workload.tokens_per_month"]
    marks = [tokens, *(m for m in (break_even(v).first, hybrid_break_even(v)) if m)]
    low, high = math.log10(min(marks)) - 1, math.log10(max(marks)) + 0.7
    steps = math.ceil((high - low) * _PER_DECADE)
    loads = sorted({tokens, *(10 ** (low + step / _PER_DECADE) for step in range(steps + 1))})
    return [
        Point(tokens_per_month=load, usd={way: tco.total(tco.monthly(way, v, load)) for way in tco.WAYS})
        for load in loads
    ]
