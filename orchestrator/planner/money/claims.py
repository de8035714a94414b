"""Checks published claims: each is computed again, and the verdict follows from the numbers alone. Pure."""

from typing import Literal

from pydantic import ValidationError

from orchestrator.catalog.catalog import Catalog
from orchestrator.catalog.claims import Claim
from orchestrator.config import Model
from orchestrator.errors import InputError
from orchestrator.plugins import nearest

Verdict = Literal["right", "rounded", "in part", "wrong", "unknown"]
EXACT, ROUNDED = 0.002, 0.02
"""Relative differences up to which a number is right, and rounded."""

Range = tuple[float, float]


class Figure(Model):
    """One number that was computed."""

    name: str
    """What it is."""
    low: float
    """The number, or one end."""
    high: float
    """The number again, or the other end."""
    unit: str
    """Such as USD/month."""


class Finding(Model):
    """What became of a claim."""

    verdict: Verdict
    """right; rounded; in part (only under a condition, or some of it); wrong; unknown."""
    words: str
    """Why, in one or two sentences."""
    figures: list[Figure] = []
    """What was computed."""


class Checked(Model):
    """A claim and its finding."""

    claim: Claim
    """What was said."""
    finding: Finding
    """What the numbers say."""


def check(claim: Claim, catalog: Catalog) -> Checked:
    """Raises InputError for an unknown check, and for numbers that it does not take or that it lacks."""
    from orchestrator.planner.money.claim_checks import CHECKS

    if claim.check not in CHECKS:
        raise InputError(f"{claim.id}: unknown check {claim.check!r}; {nearest(claim.check, sorted(CHECKS))}")
    try:
        return Checked(claim=claim, finding=CHECKS[claim.check](catalog, **claim.given))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        raise InputError(f"{claim.id}: {problems}") from error


def point(name: str, value: float, unit: str) -> Figure:
    """A figure of one number."""
    return Figure(name=name, low=value, high=value, unit=unit)


def span(name: str, ends: Range, unit: str) -> Figure:
    """A figure of two ends, in order."""
    return Figure(name=name, low=min(ends), high=max(ends), unit=unit)


def compared(claimed: Range, computed: Range) -> Verdict:
    """right, rounded or wrong, by the larger relative difference of the two ends."""
    off = max(abs(a - b) / abs(b) if b else abs(a) for a, b in zip(claimed, computed, strict=True))
    return "right" if off <= EXACT else "rounded" if off <= ROUNDED else "wrong"


def agree(one: Range, other: Range) -> str:
    """Of a claimed and a computed range: inside, overlapping or apart."""
    if other[0] <= one[0] and one[1] <= other[1]:
        return "inside"
    return "overlapping" if one[0] <= other[1] and other[0] <= one[1] else "apart"
