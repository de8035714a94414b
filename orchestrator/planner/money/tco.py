"""Total cost of ownership of a month: self-hosting, a hosted API, and a hybrid of both, line by line. Pure; USD.

Each line is a formula over the assumptions (`catalog/tco_assumptions.yaml`) and carries its arithmetic. What is paid
once, to build, stands apart. The hybrid carries a base load itself and sends what is above its capacity to the API.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from orchestrator.planner.money import fleet
from orchestrator.planner.money.fleet import Values

Way = Literal["self-hosted", "api", "hybrid"]
WAYS: tuple[Way, ...] = ("self-hosted", "api", "hybrid")


class Line(NamedTuple):
    """One component of a bill."""

    component: str
    usd: float
    because: str


def monthly(way: Way, v: Values, tokens: float) -> list[Line]:
    """The bill of a month with so many tokens."""
    if way == "api":
        return [*api_tokens(v, tokens), *api_fixed(v)]
    if way == "self-hosted":
        count, spare = fleet.replicas(v, tokens), int(v["serving.spare_replicas"])
        return [*gpus(v, count, spare), *own_costs(v, tokens)]
    return _hybrid(v, tokens, hybrid_replicas(v, tokens))


def once(way: Way, v: Values) -> list[Line]:
    """What is paid once, before the first month."""
    month = v["staff.usd_per_year"] / 12
    integrate = Line(
        "integration",
        v["api.integration_fte_months"] * month,
        f"{v['api.integration_fte_months']:g} FTE-months x ${month:,.0f}",
    )
    build = [
        Line(
            "build", v["staff.build_fte_months"] * month, f"{v['staff.build_fte_months']:g} FTE-months x ${month:,.0f}"
        ),
        Line("hardening", v["compliance.build_usd"], "first review"),
    ]
    return {"self-hosted": build, "api": [integrate], "hybrid": [*build, integrate]}[way]


def total(lines: Sequence[Line]) -> float:
    """USD of a bill."""
    return sum(line.usd for line in lines)


def gpu_price(v: Values) -> float:
    """USD per GPU-hour of the mix of owned, reserved, spot and on-demand; what is more than the whole is not bought."""
    left, price = 1.0, 0.0
    for share, usd in (
        (v["gpu.owned_share"], owned_price(v)),
        (v["gpu.reserved_share"], v["gpu.reserved_usd_per_hour"]),
        (v["gpu.spot_share"], v["gpu.spot_usd_per_hour"]),
        (1.0, v["gpu.on_demand_usd_per_hour"]),
    ):
        taken = min(share, left)
        left, price = left - taken, price + taken * usd
    return price


def owned_price(v: Values) -> float:
    """USD per GPU-hour of own machines: purchase / months + power x PUE x price + colocation; a month has 730 hours."""
    bought = v["owned.usd_per_gpu"] / v["owned.months"] + v["owned.colocation_usd_per_gpu_month"]
    return bought / 730 + v["owned.kw_per_gpu"] * v["owned.pue"] * v["owned.usd_per_kwh"]


def blended_usd_per_million(v: Values) -> float:
    """USD per million tokens of the API at this mix, with retries, reasoning, caching and discounts."""
    return total(api_tokens(v, 1e6))


def gpus(v: Values, count: int, spare: int) -> list[Line]:
    """The GPUs of so many replicas, and of those that stand by."""
    each = v["serving.gpus_per_replica"]
    replica = each * v["gpu.hours_per_month"] * gpu_price(v)
    text = f"{each:g} GPU x {v['gpu.hours_per_month']:g} h x ${gpu_price(v):.3f}"
    return [
        Line("GPUs, serving", count * replica, f"{count} replica(s) x {text}"),
        Line("GPUs, spare", spare * replica, f"{spare} replica(s) x {text}"),
    ]


def own_costs(v: Values, tokens: float) -> list[Line]:
    """Everything of self-hosting but the GPUs that serve."""
    return [*_people(v), *_data(v, tokens), *_rules(v), *_models(v)]


def _people(v: Values) -> list[Line]:
    month, calls = v["staff.usd_per_year"] / 12, v["oncall.people"] * v["oncall.share"]
    return [
        Line("staff, run", v["staff.run_fte"] * month, f"{v['staff.run_fte']:g} FTE x ${month:,.0f}"),
        Line(
            "on-call",
            calls * v["oncall.usd_per_week"] * 52 / 12,
            f"{calls:g} x ${v['oncall.usd_per_week']:,.0f}/week x 52/12",
        ),
    ]


def _data(v: Values, tokens: float) -> list[Line]:
    weights = v["storage.weights_gb"] * v["storage.versions"]
    logs = tokens * v["storage.log_bytes_per_token"] * v["storage.log_months"] / 1e9
    stored = weights + v["storage.checkpoints_gb"] + logs
    out = tokens * (1 - v["workload.input_share"]) * v["egress.bytes_per_output_token"] / 1e9
    return [
        Line(
            "storage",
            stored * v["storage.usd_per_gb_month"],
            f"({weights:,.0f} weights + {v['storage.checkpoints_gb']:,.0f} checkpoints + {logs:,.0f} logs) GB"
            f" x ${v['storage.usd_per_gb_month']:g}",
        ),
        Line("egress", out * v["egress.usd_per_gb"], f"{out:,.0f} GB x ${v['egress.usd_per_gb']:g}"),
    ]


def _rules(v: Values) -> list[Line]:
    return [
        Line("platform", v["platform.usd_per_month"], "gateway, monitoring, tracing, evaluation"),
        Line(
            "compliance",
            v["compliance.usd_per_year"] * v["compliance.share"] / 12,
            f"{v['compliance.share']:.0%} x ${v['compliance.usd_per_year']:,.0f} / 12",
        ),
        Line("licence fees", v["license.usd_per_month"], "of the weights"),
    ]


def _models(v: Values) -> list[Line]:
    price, day = gpu_price(v), v["staff.usd_per_year"] / 220
    tuned = v["finetuning.runs_per_month"] * v["finetuning.repeat_factor"] * v["finetuning.gpu_hours_per_run"]
    move = v["refresh.staff_days"] * day + v["refresh.gpu_hours"] * price
    return [
        Line(
            "fine-tuning",
            tuned * price + v["finetuning.labelling_usd_per_month"],
            f"{tuned:g} GPU-h x ${price:.3f} + ${v['finetuning.labelling_usd_per_month']:,.0f} labelling",
        ),
        Line(
            "model refresh",
            v["refresh.per_year"] / 12 * move,
            f"{v['refresh.per_year']:g}/12 x ({v['refresh.staff_days']:g} days x ${day:,.0f}"
            f" + {v['refresh.gpu_hours']:g} GPU-h)",
        ),
    ]


def api_tokens(v: Values, tokens: float) -> list[Line]:
    """in x p_in x (1 - hit) + in x hit x p_cached + out x (1 + reasoning) x p_out, x retries, x discounts."""
    share, hit = v["workload.input_share"], v["api.cache_hit_share"]
    factor = (
        (1 + v["api.retry_share"])
        * (1 - v["api.batch_share"] * v["api.batch_discount"])
        * (1 - v["api.volume_discount"])
    )
    parts = (
        ("input tokens", share * (1 - hit), v["api.input_usd_per_million"]),
        ("cached input tokens", share * hit, v["api.cached_usd_per_million"]),
        ("output tokens", (1 - share) * (1 + v["api.reasoning_overhead"]), v["api.output_usd_per_million"]),
    )
    return [
        Line(
            name,
            tokens * part / 1e6 * price * factor,
            f"{tokens * part / 1e6:,.1f} M x ${price:g} x {factor:.3f} (retries, discounts)",
        )
        for name, part, price in parts
    ]


def api_fixed(v: Values) -> list[Line]:
    month = v["staff.usd_per_year"] / 12
    return [
        Line("staff, integration", v["api.run_fte"] * month, f"{v['api.run_fte']:g} FTE x ${month:,.0f}"),
        Line("platform", v["api.platform_usd_per_month"], "gateway, tracing, evaluation"),
    ]


def hybrid_replicas(v: Values, tokens: float) -> int:
    """Own replicas of the hybrid: as set, else the number that costs least, at least one.

    A further replica always saves less than the one before it, so the first that does not pay ends the search.
    """
    if v["hybrid.own_replicas"]:
        return int(v["hybrid.own_replicas"])
    low, high = 1, fleet.replicas(v, tokens)
    while low < high:
        middle = (low + high) // 2
        if total(_hybrid(v, tokens, middle + 1)) < total(_hybrid(v, tokens, middle)):
            low = middle + 1
        else:
            high = middle
    return low


def _hybrid(v: Values, tokens: float, count: int) -> list[Line]:
    own = fleet.share_carried(v, tokens, count)
    month = v["staff.usd_per_year"] / 12
    overflow = total(api_tokens(v, tokens * (1 - own)))
    people = total(api_fixed(v)) - v["api.platform_usd_per_month"]  # one gateway serves both
    return [
        *gpus(v, count, int(v["hybrid.spare_replicas"])),
        *own_costs(v, tokens),
        Line("API tokens", overflow, f"{1 - own:.1%} of the tokens overflow"),
        Line("staff, integration", people, "as with the API alone"),
        Line("staff, two ways", v["hybrid.run_fte"] * month, f"{v['hybrid.run_fte']:g} FTE x ${month:,.0f}"),
    ]


def in_year(v: Values, year: int) -> dict[str, float]:
    """The assumptions of a later year (0 is the first): grown tokens, fallen prices; constant within a year."""
    gpu, api = ((1 - v[f"{part}.price_decline_per_year"]) ** year for part in ("gpu", "api"))
    factors: Mapping[str, float] = {
        "workload.tokens_per_month": (1 + v["workload.growth_per_year"]) ** year,
        **{f"gpu.{term}_usd_per_hour": gpu for term in ("on_demand", "reserved", "spot")},
        **{f"api.{kind}_usd_per_million": api for kind in ("input", "cached", "output")},
    }
    return {name: value * factors.get(name, 1.0) for name, value in v.items()}


def over_years(way: Way, v: Values, years: int) -> float:
    """USD of so many years with what is paid once; later years are discounted by whole years."""
    rate = 1 + v["finance.discount_rate_per_year"]
    bills = (_year(way, in_year(v, year)) / rate**year for year in range(years))
    return total(once(way, v)) + sum(bills)


def _year(way: Way, v: Values) -> float:
    return 12 * total(monthly(way, v, v["workload.tokens_per_month"]))
