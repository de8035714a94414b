"""What a million tokens of a serving target cost at the load that is really expected. Pure; US dollars.

    $/M = ($/GPU-h x GPUs of all replicas, spares too) / (3600 x tokens/s that are really served) x 1,000,000

A benchmark's $/M is that of a replica that is always busy; the same replica at 20 % costs five times as much a token.
"""

from pydantic import Field

from orchestrator.config import Model
from orchestrator.planner.estimate import Estimate, Term
from orchestrator.planner.money.prices import PriceRange

_NOTHING = 1e-9
"""Tokens/s: one token in thirty years."""


class Fleet(Model):
    """Replicas and how busy they are."""

    gpus_per_replica: int = Field(1, ge=1)
    """GPUs of one replica."""
    replicas: int = Field(1, ge=1)
    """That share the load."""
    spare_replicas: int = Field(0, ge=0)
    """That are paid for and add no capacity: N+1 is one."""
    utilisation: float = Field(1.0, gt=0, le=1)
    """Mean load over what the replicas can carry, spares not counted."""

    @property
    def num_gpus(self) -> int:
        """GPUs that are paid for."""
        return self.gpus_per_replica * (self.replicas + self.spare_replicas)


class Throughput(Model):
    """What one replica carries at its service level, both at once."""

    input_tokens_per_s: float = Field(ge=0)
    """Prompt tokens read."""
    output_tokens_per_s: float = Field(ge=0)
    """Answer tokens written."""

    @property
    def total(self) -> float:
        """Both together."""
        return self.input_tokens_per_s + self.output_tokens_per_s


class TokensCost(Model):
    """USD per million tokens, three ways to say the same bill."""

    total: Estimate
    """Per million tokens, input and output together: what to compare with an API's blended price."""
    output: Estimate | None
    """Per million output tokens, when they carry the whole bill; None: nothing is written."""
    input: Estimate | None
    """Per million input tokens, when they carry the whole bill; None: nothing is read."""


def per_million(throughput: Throughput, fleet: Fleet, price: PriceRange) -> TokensCost | None:
    """None where a replica carries nothing."""
    total = _estimate(throughput.total, fleet, price)
    if total is None:
        return None
    return TokensCost(
        total=total,
        output=_estimate(throughput.output_tokens_per_s, fleet, price),
        input=_estimate(throughput.input_tokens_per_s, fleet, price),
    )


def _estimate(tokens_per_s: float, fleet: Fleet, price: PriceRange) -> Estimate | None:
    served = tokens_per_s * fleet.replicas * fleet.utilisation
    if served < _NOTHING:
        return None
    per_dollar = fleet.num_gpus / 3600 / served * 1e6
    because = (
        f"{fleet.num_gpus} GPU x ${price.middle:.2f}/h / ({fleet.replicas} replica(s) x {tokens_per_s:,.0f} tokens/s"
        f" x {fleet.utilisation:.0%} busy x 3600 s)"
    )
    return Estimate(
        unit="USD per million tokens",
        value=per_dollar * price.middle,
        low=per_dollar * price.low,
        high=per_dollar * price.high,
        terms=[Term(name="GPUs", amount=per_dollar * price.middle, because=because)],
    )
