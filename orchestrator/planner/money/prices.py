"""Which price of the catalog counts: the market's range for a GPU, and the one row of an API that is valid on a date.

Nothing is averaged over terms: on-demand, spot and reserved are different goods.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import date

from orchestrator.catalog.prices import ApiPrice, GpuPrice
from orchestrator.config import Model
from orchestrator.errors import InputError
from orchestrator.planner.estimate import Unknown
from orchestrator.stats import percentile

TERMS = ("on-demand", "spot", "reserved")
_NOT_FOR_RENT = re.compile(r"median|average|index", re.IGNORECASE)
"""A provider's name that is a statistic: good as a sanity check, but nobody rents from it."""


class PriceRange(Model):
    """What one GPU costs for an hour on one term, over the providers."""

    term: str
    """on-demand, spot or reserved."""
    low: float
    """10th percentile of the providers' prices, USD per GPU-hour; of a single provider the lowest it ever asked."""
    middle: float
    """Median."""
    high: float
    """90th percentile, or the highest."""
    providers: list[str]
    """Whose prices these are, cheapest first."""
    source: str
    """How many, from where and when."""


def market(prices: Iterable[GpuPrice], term: str, provider: str | None = None) -> PriceRange | Unknown:
    """The range over the newest price of each provider; of one provider where it is named."""
    known = [price for price in prices if _is_term(price.term, term)]
    found = sorted(newest(known, term, provider), key=lambda price: price.usd_per_gpu_hour)
    if not found:
        where = f" of {provider}" if provider else ""
        return Unknown(reason=f"unknown: the catalog has no {term} price{where} for this GPU")
    amounts = [price.usd_per_gpu_hour for price in found]
    low, high = percentile(amounts, 10), percentile(amounts, 90)
    if len(found) == 1:  # one price has no spread; its own history has
        history = [price.usd_per_gpu_hour for price in known if price.provider == found[0].provider]
        low, high = min(history), max(history)
    return PriceRange(
        term=term,
        low=low,
        middle=percentile(amounts, 50),
        high=high,
        providers=[price.provider for price in found],
        source=_origin(found),
    )


def newest(prices: Iterable[GpuPrice], term: str, provider: str | None = None) -> list[GpuPrice]:
    """One price of each provider, the newest; a claim by a third party only where nobody lists a price."""
    latest: dict[str, GpuPrice] = {}
    for price in prices:
        if not _is_term(price.term, term) or _NOT_FOR_RENT.search(price.provider):
            continue
        if provider is not None and provider.lower() not in price.provider.lower():
            continue
        old = latest.get(price.provider)
        if old is None or _when(price) >= _when(old):
            latest[price.provider] = price
    listed = [price for price in latest.values() if price.evidence not in ("claimed", "weak")]
    return listed or list(latest.values())


def _when(price: GpuPrice) -> tuple[int, int, int]:
    """(year, month, day) of a date such as `2026-09-25`, `2026-03`, `2026-Q1` or `2026 (commit ...)`; 0: not said."""
    found = re.match(r"(\d{4})(?:-(\d\d))?(?:-(\d\d))?", price.date or "")
    return (int(found[1]), int(found[2] or 0), int(found[3] or 0)) if found else (0, 0, 0)


def _is_term(found: str, asked: str) -> bool:
    """`reserved-1y` is reserved; a marketplace's price is paid by the hour like on-demand."""
    if asked == "on-demand":
        return found.startswith(("on-demand", "market"))
    return found.startswith(asked)


def _origin(found: Sequence[GpuPrice]) -> str:
    if len(found) == 1:
        price = found[0]
        return f"{price.provider}, {price.source}, {price.date}" + (
            " (claimed by a third party)" if price.evidence == "claimed" else ""
        )
    dates = sorted({_when(price) for price in found})
    return f"catalog: {len(found)} providers, {dates[0][0]} to {'-'.join(f'{n:02d}' for n in dates[-1] if n)}"


def api_price(prices: Sequence[ApiPrice], on: date, *, tier: str = "standard", vendor: str | None = None) -> ApiPrice:
    """The row of a hosted model that is valid on a date. Raises InputError where none is, or several sell it."""
    of_vendor = [price for price in prices if vendor in (None, price.vendor)]
    named = sorted({price.model for price in prices})
    of_tier = [price for price in of_vendor if price.tier.split()[0] == tier.split()[0]]
    if not of_tier:
        tiers = sorted({f"{price.vendor}: {price.tier}" for price in prices})
        raise InputError(f"no {tier} price of {', '.join(named)}; the catalog has {'; '.join(tiers) or 'none'}")
    valid = [price for price in of_tier if _is_valid(price, on)]
    if not valid:
        spans = "; ".join(f"from {price.valid_from or '?'} to {price.valid_to or 'now'}" for price in of_tier)
        raise InputError(f"no price of {named[0]} is valid on {on}; the catalog has those {spans}")
    vendors = sorted({price.vendor for price in valid})
    if len(vendors) > 1:
        choices = ", ".join(f"{name}/{named[0]}" for name in vendors)
        raise InputError(f"{named[0]} is sold by {' and '.join(vendors)}", next_step=f"say which: {choices}")
    return max(valid, key=lambda price: (price.valid_from or "", price.observed or ""))


def _is_valid(price: ApiPrice, on: date) -> bool:
    """A span includes its first day and not its last one, which is the first of the row after it."""
    today = on.isoformat()
    return (price.valid_from or "") <= today < (price.valid_to or "9999")
