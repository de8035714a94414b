"""The formulas that test claims about hosted APIs: bills by the mix of input and output, rates, what a sum buys.

They are the formulas of `orch cost compare` with every component set to nothing that the claim leaves out.
"""

import math
from datetime import date

from pydantic import validate_call

from orchestrator.catalog.assumptions import shipped
from orchestrator.catalog.catalog import Catalog
from orchestrator.catalog.prices import ApiPrice
from orchestrator.errors import InputError
from orchestrator.planner.money import tco
from orchestrator.planner.money.claims import Finding, agree, compared, point, span
from orchestrator.planner.money.prices import api_price

DAYS = 30
"""Of a month, as the claims count."""
_ONES = (
    "owned.months",
    "workload.peak_to_mean",
    "serving.peak_utilisation",
    "serving.min_replicas",
    "serving.gpus_per_replica",
)
MIXES = {"all input": 1.0, "3:1 input to output": 0.75, "1:1": 0.5, "all output": 0.0}


def bare(**known: float) -> dict[str, float]:
    """Assumptions in which nothing costs anything and one replica carries everything, but for what is given."""
    zero = dict.fromkeys(shipped(), 0.0) | dict.fromkeys(_ONES, 1.0)
    names = {name.replace("__", "."): value for name, value in known.items()}
    return zero | {"serving.tokens_per_s_per_replica": math.inf, "gpu.hours_per_month": 730.0} | names


def _rates(price: ApiPrice, input_share: float) -> dict[str, float]:
    return bare(
        workload__input_share=input_share,
        api__input_usd_per_million=price.input_usd_per_million,
        api__output_usd_per_million=price.output_usd_per_million,
    )


def bill(price: ApiPrice, input_tokens: float, output_tokens: float) -> float:
    """USD of tokens at the rates of a row."""
    tokens = input_tokens + output_tokens
    return tco.total(tco.monthly("api", _rates(price, input_tokens / tokens), tokens))


def bills(price: ApiPrice, tokens: float) -> dict[str, float]:
    """Mix -> USD of so many tokens."""
    return {name: bill(price, tokens * share, tokens * (1 - share)) for name, share in MIXES.items()}


def listed(catalog: Catalog, model: str) -> ApiPrice:
    """The row that was valid when it was seen. Raises InputError where there is none."""
    found = catalog.api_prices(model)
    if not found:
        raise InputError(f"the catalog has no price of a hosted model {model!r}; `orch prices` lists them")
    return api_price(found, max(_day(price.observed) for price in found))


def _day(text: str) -> date:
    parts = [int(part) for part in text.split("-")]
    return date(*[*parts, 1, 1][:3])


@validate_call(config={"arbitrary_types_allowed": True})
def api_bill(catalog: Catalog, *, model: str, tokens_per_day: float, usd_per_month: float) -> Finding:
    """A month's bill of an API, by the mix of input and output."""
    price, tokens = listed(catalog, model), tokens_per_day * DAYS
    mixes, implied = bills(price, tokens), usd_per_month / tokens * 1e6
    each = bill(price, tokens, tokens)
    rates = (price.input_usd_per_million, price.output_usd_per_million)
    figures = [point("implied by the claim", implied, "USD/M"), span("the API's rates", rates, "USD/M")]
    figures += [point(name, usd, "USD/month") for name, usd in mixes.items()]
    figures.append(point("that many input and that many output tokens", each, "USD/month"))
    between = f"it is ${min(mixes.values()):,.2f} to ${max(mixes.values()):,.2f} by the mix of input and output"
    if min(mixes.values()) <= usd_per_month <= max(mixes.values()):
        return Finding(verdict="in part", words=f"right for one mix only: {between}", figures=figures)
    words = (
        f"${usd_per_month:,.0f} are ${implied:,.2f} per million tokens, the dearest rate is ${max(rates):g}; {between}."
    )
    if compared((usd_per_month,) * 2, (each,) * 2) == "right":
        words += (
            f" It is right only for {tokens_per_day / 1e6:g}M input AND {tokens_per_day / 1e6:g}M output tokens a day."
        )
    return Finding(verdict="wrong", words=words, figures=figures)


@validate_call(config={"arbitrary_types_allowed": True})
def tokens_for_money(catalog: Catalog, *, model: str, usd: float, tokens: float) -> Finding:
    """How many tokens of an API a sum buys."""
    price, implied = listed(catalog, model), usd / tokens * 1e6
    bought = {name: usd / bills(price, 1e6)[name] * 1e6 for name in MIXES}
    figures = [point("implied by the claim", implied, "USD/M")]
    figures += [point(f"tokens, {name}", count, "tokens") for name, count in bought.items()]
    ends = (min(bought.values()), max(bought.values()))
    fits = agree((tokens, tokens), ends) == "inside"
    words = (
        f"the claim is ${implied:.2f} per million tokens; {model} asks ${price.input_usd_per_million:g} in and"
        f" ${price.output_usd_per_million:g} out, which buys {ends[0] / 1e9:,.0f}B to {ends[1] / 1e9:,.0f}B."
    )
    return Finding(verdict="in part" if fits else "wrong", words=words, figures=figures)


@validate_call(config={"arbitrary_types_allowed": True})
def api_rate(catalog: Catalog, *, model: str, input_usd_per_million: float) -> Finding:
    """A rate, against the catalog's row, and what the vendor asks now."""
    price = listed(catalog, model)
    verdict = compared((input_usd_per_million,) * 2, (price.input_usd_per_million,) * 2)
    since = f" from {price.valid_from}" if price.valid_from else ""
    words = f"the catalog has ${price.input_usd_per_million:g} in, ${price.output_usd_per_million:g} out{since}"
    later = [p for p in catalog.api_prices() if p.vendor == price.vendor and p.observed > price.observed]
    if later:
        seen = max(p.observed for p in later)
        rates = sorted(p.input_usd_per_million for p in later if p.observed == seen)
        models = ", ".join(sorted({p.model for p in later if p.observed == seen}))
        words += f"; the vendor's newest rows, of {seen}, are ${rates[0]:g} to ${rates[-1]:g} in ({models})"
    figures = [
        point("input", price.input_usd_per_million, "USD/M"),
        point("output", price.output_usd_per_million, "USD/M"),
    ]
    return Finding(verdict=verdict, words=f"{words}.", figures=figures)
