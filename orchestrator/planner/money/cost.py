"""What a run costs: wall time x GPUs x price per GPU-hour, by provider and by term. Pure; US dollars.

`of_run` gives one number over a range of prices, `offers` one for each provider and term, cheapest first.
The number of GPU-hours is billed as it is: minimum terms, idle time before the start and storage are not in it.
"""

from collections.abc import Iterable

from pydantic import Field

from orchestrator.catalog.prices import GpuPrice
from orchestrator.config import Model
from orchestrator.planner.estimate import Estimate, Term, Unknown
from orchestrator.planner.money.prices import TERMS, PriceRange, market, newest
from orchestrator.units import Seconds


class Interruption(Model):
    """What it costs that spot nodes are taken away: an assumption of the project, to be set by who knows better."""

    per_hour: float = Field(0.05, ge=0, allow_inf_nan=False)
    """How often one node is taken away, per hour of it; the default is once in 20 hours."""
    lost: Seconds = Seconds(1500)
    """Lost each time: half a checkpoint interval, waiting for a node, loading; the default is 25 minutes."""

    def stretch(self, nodes: int = 1, times: float = 1.0) -> float | None:
        """Wall time over useful time, 1 / (1 - rate x lost); None when a run would never end.

        Any node that goes takes the run with it. `times` scales the rate, for the far end of an interval.
        """
        wasted = times * self.per_hour * nodes * float(self.lost) / 3600
        return None if wasted >= 1 else 1 / (1 - wasted)


RARELY, OFTEN = 0.0, 3.0
"""Rates at the ends of a spot run's interval, times the middle: never interrupted, three times as often."""


class Offer(Model):
    """What a run costs at one provider on one term."""

    provider: str
    """Who rents the GPUs out."""
    term: str
    """on-demand, spot, reserved-1y ..."""
    usd_per_gpu_hour: float
    """Its price."""
    cost: Estimate
    """USD."""
    wall_time: Estimate
    """Seconds, with what interruptions of spot nodes add."""
    date: str
    """When the price was seen."""
    source: str
    """Where."""
    evidence: str
    """catalog, listed, third-party, claimed or weak."""


def of_run(
    time: Estimate | Unknown,
    num_gpus: int,
    price: PriceRange | Unknown,
    *,
    nodes: int = 1,
    interruption: Interruption | None = None,
) -> Estimate | Unknown:
    """USD of a run that takes `time` seconds on so many GPUs, all nodes together.

    The interval pairs the short time with the low price and the long one with the high price.
    """
    if isinstance(price, Unknown):
        return price
    if price.term == "spot":
        time = stretched(time, interruption or Interruption(), nodes)
    per_second = num_gpus / 3600
    if isinstance(time, Unknown):
        return Unknown(
            reason=time.reason,
            low=None if time.low is None else time.low * per_second * price.low,
            high=None if time.high is None else time.high * per_second * price.high,
        )
    hours = time.value / 3600
    because = f"{hours:.2f} h x {num_gpus} GPU x ${price.middle:.2f}/GPU-h ({price.term}; {price.source})"
    amount = time.value * per_second * price.middle
    return Estimate(
        unit="USD",
        value=amount,
        low=time.low * per_second * price.low,
        high=time.high * per_second * price.high,
        terms=[Term(name="GPUs", amount=amount, because=because)],
        source=time.source,
    )


def stretched(time: Estimate | Unknown, interruption: Interruption, nodes: int = 1) -> Estimate | Unknown:
    """The wall time on spot nodes."""
    middle, high = interruption.stretch(nodes), interruption.stretch(nodes, OFTEN)
    if isinstance(time, Unknown):
        return Unknown(reason=time.reason, low=time.low)
    if middle is None or high is None:
        return Unknown(
            reason=f"unknown: with {interruption.per_hour:g} interruptions per node-hour that lose {interruption.lost}"
            f" each, {nodes} spot node(s) may never finish",
            low=time.low,
        )
    added = Term(
        name="interruptions",
        amount=time.value * (middle - 1),
        because=f"{interruption.per_hour:g}/h x {nodes} node(s) x {interruption.lost} lost each (assumed)",
    )
    return time.model_copy(
        update={"value": time.value * middle, "high": time.high * high, "terms": [*time.terms, added]}
    )


def offers(
    time: Estimate,
    num_gpus: int,
    prices: Iterable[GpuPrice],
    *,
    nodes: int = 1,
    interruption: Interruption | None = None,
) -> list[Offer]:
    """The run at each provider and term that the catalog knows, cheapest first."""
    known = list(prices)
    found = [
        _offer(time, num_gpus, price, term, nodes, interruption) for term in TERMS for price in newest(known, term)
    ]
    return sorted((offer for offer in found if offer), key=lambda offer: (offer.cost.value, offer.provider))


def _offer(
    time: Estimate, num_gpus: int, price: GpuPrice, term: str, nodes: int, interruption: Interruption | None
) -> Offer | None:
    point = market([price], term)
    wall = stretched(time, interruption or Interruption(), nodes) if term == "spot" else time
    cost = of_run(time, num_gpus, point, nodes=nodes, interruption=interruption)
    if isinstance(cost, Unknown) or isinstance(wall, Unknown):
        return None
    return Offer(
        provider=price.provider,
        term=price.term,
        usd_per_gpu_hour=price.usd_per_gpu_hour,
        cost=cost,
        wall_time=wall,
        date=price.date,
        source=price.source,
        evidence=price.evidence,
    )
