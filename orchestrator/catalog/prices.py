"""What a GPU costs for an hour and a hosted API for a million tokens, each with its source, date and grade."""

from typing import Literal

from pydantic import Field

from orchestrator.config import Model

Term = Literal["on-demand", "spot", "reserved-1y", "reserved-3y", "marketplace"]
Evidence = Literal["catalog", "listed", "third-party", "claimed", "weak"]
TERMS: tuple[str, ...] = ("on-demand", "spot", "reserved-1y", "reserved-3y", "marketplace")


class GpuPrice(Model):
    """What one provider asks for one GPU."""

    gpu: str
    """Id in gpus.yaml."""
    provider: str
    """Who rents it out, or whose statistic it is."""
    usd_per_gpu_hour: float = Field(ge=0, allow_inf_nan=False)
    """USD for one GPU for an hour; a whole machine's price is divided by its GPUs."""
    term: Term = "on-demand"
    """on-demand, spot (may be taken back), reserved-1y, reserved-3y, marketplace (private hosts)."""
    shape: str | None = None
    """Machine type, where the price belongs to one."""
    region: str | None = None
    """Where the price belongs to one."""
    date: str
    """When it was seen: a year, a month or a day."""
    source: str
    """Where it was seen."""
    evidence: Evidence = "listed"
    """catalog (a machine-readable list), listed (a price page), third-party, claimed (an article), weak."""
    notes: str | None = None
    """What to mind."""


class ApiPrice(Model):
    """What a hosted API asks for a model, in USD per million tokens."""

    vendor: str
    """Who serves it."""
    model: str
    """Its name there."""
    tier: str = "standard"
    """standard, or a surcharge such as `long-context >200k`."""
    input_usd_per_million: float = Field(ge=0, allow_inf_nan=False)
    """Prompt tokens."""
    output_usd_per_million: float = Field(ge=0, allow_inf_nan=False)
    """Answer tokens."""
    cached_usd_per_million: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Prompt tokens that the vendor's cache holds; None: unknown."""
    valid_from: str | None = None
    """First day."""
    valid_to: str | None = None
    """Day from which it is no longer valid."""
    observed: str
    """When it was seen."""
    source: str
    """Where it was seen."""
    evidence: Evidence = "listed"
    """listed (the vendor or two pages that agree), third-party (a maintained list), claimed, weak."""
    notes: str | None = None
    """What to mind."""
