"""Published claims about cost, restated as numbers, from claims.yaml or a user's file of the same shape."""

from pathlib import Path
from typing import Any

from orchestrator.config import Model
from orchestrator.documents import read
from orchestrator.validation import validate

SHIPPED = Path(__file__).parent / "claims.yaml"


class Claim(Model):
    """What somebody says, and the formula that tests it."""

    id: str
    """Such as A1."""
    says: str
    """In our words."""
    check: str
    """A function of planner/money/claim_checks.py."""
    given: dict[str, Any]
    """Its arguments: the numbers of the claim."""


class Claims(Model):
    """One file."""

    date: str
    """When they were read."""
    source: str
    """Who says so."""
    claims: list[Claim]
    """In order."""


def load(path: Path | None = None) -> Claims:
    """Those of a file; default: the shipped ones. Raises RecipeError with every problem of it."""
    found = path or SHIPPED
    return validate(Claims, read(found), name=str(found))
