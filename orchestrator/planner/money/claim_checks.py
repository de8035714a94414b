"""The formulas that test claims about self-hosting: bills, shares, savings, break-evens; and the list of all checks.

Their arguments are a claim's `given`. They are the formulas of `orch cost compare` with every component set to nothing
that the claim leaves out.
"""

import math
from collections.abc import Callable
from typing import Any

from pydantic import validate_call

from orchestrator.catalog.catalog import Catalog
from orchestrator.planner.estimate import Unknown
from orchestrator.planner.money import claim_api, claim_hardware, tco
from orchestrator.planner.money.break_even import break_even as crossing
from orchestrator.planner.money.claim_api import DAYS, MIXES, bare, bill, bills, listed
from orchestrator.planner.money.claims import Finding, Range, agree, compared, point, span
from orchestrator.planner.money.prices import market


def _own(gpu_usd_per_month: float, staff_usd_per_month: float, usd_per_million: float = 0.0) -> dict[str, float]:
    """One replica and so much staff against an API with one rate."""
    return bare(
        gpu__on_demand_usd_per_hour=gpu_usd_per_month / 730,
        staff__run_fte=1.0,
        staff__usd_per_year=12 * staff_usd_per_month,
        api__input_usd_per_million=usd_per_million,
        api__output_usd_per_million=usd_per_million,
    )


@validate_call(config={"arbitrary_types_allowed": True})
def own_bill(
    catalog: Catalog,
    *,
    gpu: str,
    gpus: int,
    gpu_usd_per_month: float,
    staff_usd_per_month: Range,
    usd_per_month: Range,
) -> Finding:
    """GPUs and staff of a month."""
    low, high = (tco.total(tco.monthly("self-hosted", _own(gpu_usd_per_month, s), 0)) for s in staff_usd_per_month)
    hourly = gpu_usd_per_month / gpus / 730
    figures = [span("sum", (low, high), "USD/month"), point("implied price", hourly, "USD/GPU-h")]
    words = f"the sum is ${low:,.0f} to ${high:,.0f}; ${hourly:.3f} per GPU-hour"
    for term in ("reserved", "on-demand"):
        found = market(catalog.gpu_prices(gpu), term)
        if not isinstance(found, Unknown):
            figures.append(span(f"market, {term}", (found.low, found.high), "USD/GPU-h"))
            words += f", {term} is ${found.middle:.2f} (${found.low:.2f} to ${found.high:.2f})"
    zero = [line.component for line in tco.monthly("self-hosted", _own(1, 1), 1e9) if not line.usd]
    return Finding(
        verdict=compared(usd_per_month, (low, high)), words=f"{words}. Left out: {', '.join(zero)}.", figures=figures
    )


@validate_call(config={"arbitrary_types_allowed": True})
def saving(
    catalog: Catalog,
    *,
    model: str,
    tokens_per_day: float,
    api_usd_per_month: float,
    own_usd_per_month: Range,
    usd_per_month: Range,
    usd_per_year: Range,
) -> Finding:
    """The API's bill less the own one, as claimed and with the API's real price."""
    low, high = api_usd_per_month - max(own_usd_per_month), api_usd_per_month - min(own_usd_per_month)
    figures = [span("as claimed", (low, high), "USD/month"), span("as claimed", (12 * low, 12 * high), "USD/year")]
    verdict = compared(usd_per_month, (low, high))
    if verdict != "wrong" and compared(usd_per_year, (12 * low, 12 * high)) == "wrong":
        verdict = "wrong"
    mixes = bills(listed(catalog, model), tokens_per_day * DAYS)
    real = {name: (usd - max(own_usd_per_month), usd - min(own_usd_per_month)) for name, usd in mixes.items()}
    figures += [span(f"at the real price, {name}", ends, "USD/month") for name, ends in real.items()]
    losing = [name for name, ends in real.items() if ends[1] < 0]
    words = f"the subtraction gives ${low:,.0f} to ${high:,.0f} a month"
    if losing:
        words += f"; but with {model}'s real rates the case loses money at {', '.join(losing)}"
    if losing and verdict in ("right", "rounded"):
        verdict = "in part"
    return Finding(verdict=verdict, words=f"{words}.", figures=figures)


@validate_call(config={"arbitrary_types_allowed": True})
def staff_share(catalog: Catalog, *, gpu_usd_per_month: float, staff_usd_per_month: Range, share: Range) -> Finding:
    """What part of the bill the staff is."""
    ends = []
    for staff in staff_usd_per_month:
        lines = tco.monthly("self-hosted", _own(gpu_usd_per_month, staff), 0)
        ends.append(sum(line.usd for line in lines if line.component == "staff, run") / tco.total(lines))
    found = (min(ends), max(ends))
    return Finding(
        verdict=compared(share, found),
        words=f"the claim's own example gives {found[0]:.1%} to {found[1]:.1%}.",
        figures=[span("share of staff", (100 * found[0], 100 * found[1]), "%")],
    )


@validate_call(config={"arbitrary_types_allowed": True})
def break_even(
    catalog: Catalog,
    *,
    model: str,
    gpu_usd_per_month: float,
    staff_usd_per_month: Range,
    usd_per_million: float,
    tokens_per_month: Range,
    tokens_per_day: Range,
    always_above: float,
) -> Finding:
    """From which load the own bill is the smaller one, at the claim's rate and at the API's."""
    daily = (tokens_per_day[0] * DAYS, tokens_per_day[1] * DAYS)
    price = listed(catalog, model)
    rates = {"the claim's own rate": usd_per_million} | {
        name: bill(price, 1e6 * share, 1e6 * (1 - share)) for name, share in MIXES.items()
    }
    found = {
        f"{name}, ${rate:g}/M": _crossings(gpu_usd_per_month, staff_usd_per_month, rate) for name, rate in rates.items()
    }
    figures = [span(name, ends, "tokens/month") for name, ends in found.items()]
    figures += [
        point(f"GPUs alone, ${rate:g}/M", _crossings(gpu_usd_per_month, (0, 0), rate)[0], "tokens/month")
        for rate in (usd_per_million, rates["3:1 input to output"])
    ]
    own = next(iter(found.values()))
    apart = agree(tokens_per_month, daily) == "apart"
    words = (
        f"{_millions(tokens_per_month)} a month and {_millions(daily)} (its daily figures x {DAYS})"
        f" {'contradict each other' if apart else 'overlap'}. At its own ${usd_per_million:g}/M it is {_millions(own)};"
        f" at {model}'s 3:1 rate {_millions(found[next(n for n in found if n.startswith('3:1'))])}."
    )
    if always_above < own[0]:
        words += f" {always_above / 1e6:,.0f}M is below all of them."
    kinds = {agree(claimed, own) for claimed in (tokens_per_month, daily)}
    return Finding(verdict="wrong" if kinds == {"apart"} else "in part", words=words, figures=figures)


def _crossings(gpu: float, staff: Range, rate: float) -> Range:
    ends = [crossing(_own(gpu, each, rate)).first for each in staff]
    low, high = (math.inf if end is None else end for end in ends)
    return low, high


def _millions(ends: Range) -> str:
    return f"{ends[0] / 1e6:,.0f}-{ends[1] / 1e6:,.0f}M"


@validate_call(config={"arbitrary_types_allowed": True})
def staffing(catalog: Catalog, *, engineers: Range, usd_per_engineer: float, usd_per_year: Range) -> Finding:
    """Whether a yearly sum pays the engineers that it is said to need."""
    salaries = (engineers[0] * usd_per_engineer, engineers[1] * usd_per_engineer)
    rest = (usd_per_year[0] - salaries[1], usd_per_year[1] - salaries[0])
    figures = [
        span("salaries", salaries, "USD/year"),
        span("left for all else", (rest[0] / 12, rest[1] / 12), "USD/month"),
    ]
    if rest[1] < 0:
        shares = (usd_per_year[0] / salaries[1], usd_per_year[1] / salaries[0])
        words = (
            f"the salaries alone are ${salaries[0]:,.0f} to ${salaries[1]:,.0f}; it holds only if at most"
            f" {shares[0]:.0%} to {shares[1]:.0%} of their time is meant, and then nothing is left for GPUs."
        )
        return Finding(verdict="wrong", words=words, figures=figures)
    words = f"salaries of ${salaries[0]:,.0f} leave ${rest[0] / 12:,.0f} to ${rest[1] / 12:,.0f} a month for all else."
    return Finding(verdict="right" if rest[0] >= 0 else "in part", words=f"consistent: {words}", figures=figures)


CHECKS: dict[str, Callable[..., Any]] = {
    check.__name__: check
    for check in (
        claim_api.api_bill,
        own_bill,
        saving,
        staff_share,
        claim_api.tokens_for_money,
        break_even,
        staffing,
        claim_api.api_rate,
        claim_hardware.capacity,
        claim_hardware.replica_price,
        claim_hardware.first_token,
        claim_hardware.qlora_fits,
        claim_hardware.compression,
    )
}
"""By the name that claims.yaml uses."""
