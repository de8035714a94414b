"""The assumptions of one comparison: the shipped ones, the catalog's prices, what was given and what was predicted.

Later wins: shipped, catalog and model, the command's options, a file of assumptions, `--set`. Each keeps its source.
"""

from collections.abc import Mapping, Sequence
from datetime import date

from orchestrator.catalog.assumptions import Assumptions, changed
from orchestrator.catalog.prices import ApiPrice, GpuPrice
from orchestrator.config import Model
from orchestrator.errors import InputError
from orchestrator.planner.estimate import Estimate, Unknown
from orchestrator.planner.money.prices import TERMS, market

GIVEN = "given on the command line"
_STALE_DAYS = 120
_PRICE = {"on-demand": "gpu.on_demand_usd_per_hour", "reserved": "gpu.reserved_usd_per_hour"} | {
    "spot": "gpu.spot_usd_per_hour"
}


class Ask(Model):
    """What a comparison is asked about."""

    tokens_per_month: float
    """Input and output."""
    input_share: float
    """Of the tokens."""
    gpus_per_replica: int = 1
    """GPUs of one replica."""
    replicas: int | None = None
    """Replicas that share the load, at least."""
    tokens_per_s_per_replica: float | None = None
    """Measured; input and output together."""
    weights_gb: float | None = None
    """One version of the weights as it is served."""
    provider: str | None = None
    """Of the GPUs; None: the market."""


def asked(known: Assumptions, ask: Ask, on: date) -> Assumptions:
    """With the load and the fleet that were given; the ranges: half to twice the load, ten points off the mix."""
    tokens, share, day = ask.tokens_per_month, ask.input_share, on.isoformat()
    around = {"low": max(0.0, share - 0.1), "high": min(1.0, share + 0.1)}
    found = changed(known, "workload.tokens_per_month", tokens, GIVEN, day, low=tokens / 2, high=2 * tokens)
    found = changed(found, "workload.input_share", share, GIVEN, day, **around)
    found = changed(found, "serving.gpus_per_replica", ask.gpus_per_replica, GIVEN, day)
    if ask.replicas is not None:
        found = changed(found, "serving.min_replicas", ask.replicas, GIVEN, day)
    if ask.tokens_per_s_per_replica is not None:
        speed = ask.tokens_per_s_per_replica
        ends = {"low": 0.8 * speed, "high": 1.2 * speed}
        found = changed(found, "serving.tokens_per_s_per_replica", speed, GIVEN, day, **ends)
    if ask.weights_gb is not None:
        found = changed(found, "storage.weights_gb", ask.weights_gb, "the model's parameters", day)
    return found


def predicted(known: Assumptions, tokens_per_s: Estimate, on: date) -> Assumptions:
    """With a predicted throughput of a replica (input and output tokens/s together) and its interval."""
    ends = {"low": tokens_per_s.low, "high": tokens_per_s.high}
    name = "serving.tokens_per_s_per_replica"
    return changed(known, name, tokens_per_s.value, tokens_per_s.source, on.isoformat(), **ends)


def priced_gpu(
    known: Assumptions, gpu: str, prices: Sequence[GpuPrice], on: date, provider: str | None = None
) -> Assumptions:
    """With the market's prices of a GPU. A term without a price gets the share 0: it cannot be planned with."""
    found = known
    for term in TERMS:
        price = market(prices, term, provider)
        if isinstance(price, Unknown):
            reason = price.reason.replace("this GPU", gpu)
            found = _without(found, _PRICE[term], f"gpu.{term}_share", reason)
        else:
            ends = {"low": price.low, "high": price.high}
            found = changed(found, _PRICE[term], price.middle, price.source, on.isoformat(), **ends)
    return found


def priced_api(known: Assumptions, price: ApiPrice) -> Assumptions:
    """With the row of the catalog that was chosen."""
    source = row(price)
    rates = {"input": price.input_usd_per_million, "output": price.output_usd_per_million}
    found = known
    for kind, rate in rates.items():
        found = changed(found, f"api.{kind}_usd_per_million", rate, source, price.observed)
    name = "api.cached_usd_per_million"
    if price.cached_usd_per_million is None:
        return _without(found, name, "api.cache_hit_share", f"unknown: no cached price of {price.model}")
    return changed(found, name, price.cached_usd_per_million, source, price.observed)


def row(price: ApiPrice) -> str:
    """Which row of the catalog a price is, in words."""
    span = f", valid from {price.valid_from}" if price.valid_from else ""
    span += f" to {price.valid_to}" if price.valid_to else ""
    return f"{price.vendor}/{price.model} {price.tier}{span}, seen {price.observed}, {price.source}"


def _without(known: Assumptions, price: str, share: str, reason: str) -> Assumptions:
    """The price stays unknown, and nothing is bought at it."""
    found = {**known, price: known[price].model_copy(update={"source": reason})}
    if share in found:
        found[share] = found[share].model_copy(update={"value": 0.0, "low": 0.0, "high": 0.0, "source": reason})
    return found


def settled(known: Assumptions, settings: Mapping[str, tuple[float, str]], on: date) -> Assumptions:
    """With a user's own values, name -> (value, source). Raises InputError as `changed` does."""
    found = known
    for name, (value, source) in settings.items():
        found = changed(found, name, value, source, on.isoformat())
    return _mixed(found, settings)


def _mixed(known: Assumptions, settings: Mapping[str, tuple[float, str]]) -> Assumptions:
    """More on spot or owned leaves less to reserve; who sets the reserved share too is told when they do not fit."""
    reserved = known["gpu.reserved_share"]
    others = [known[name] for name in ("gpu.owned_share", "gpu.spot_share") if known[name].value]
    left = 1 - sum(other.value or 0 for other in others)
    if (reserved.value or 0) <= left + 1e-9 or left < 0:
        return known
    names = " and ".join(other.id for other in others)
    if reserved.id in settings:
        raise InputError(
            f"{reserved.id}={reserved.value:g} and {names} are more than 1 together",
            next_step=f"--set {reserved.id}={left:g}",
        )
    rest = {"value": left, "low": 0.0, "high": left, "source": f"what {names} leaves"}
    return {**known, reserved.id: reserved.model_copy(update=rest)}


def doubts(price: ApiPrice, known: Assumptions, on: date) -> list[str]:
    """What to mind about the prices and the capacity."""
    found = []
    if price.notes:
        found.append(f"{price.vendor}/{price.model}: {price.notes}")
    if price.evidence in ("claimed", "weak"):
        found.append(f"the price of {price.vendor}/{price.model} is {price.evidence}")
    seen = _day(price.observed)
    if seen and (on - seen).days > _STALE_DAYS:
        found.append(f"the price of {price.vendor}/{price.model} was seen {(on - seen).days} days ago")
    if known["serving.tokens_per_s_per_replica"].value is None:
        found.append(
            "unknown: how many tokens/s a replica carries; the number of replicas is not checked against the load,"
            " and the break-even adds none"
        )
    shares = {term: known[f"gpu.{term}_share"].value or 0.0 for term in ("reserved", "spot")}
    rest = 1 - sum(shares.values()) - (known["gpu.owned_share"].value or 0.0)
    for term, share in {**shares, "on_demand": rest}.items():
        price_of = known[f"gpu.{term}_usd_per_hour"]
        if share > 1e-9 and "claimed" in price_of.source and price_of.value is not None:
            found.append(f"{price_of.id} rests on a third party's claim: {price_of.source}")
    return found


def _day(text: str) -> date | None:
    parts = text.split("-")
    try:
        return date(*(int(part) for part in (*parts, "1", "1")[:3]))
    except ValueError:
        return None
