"""What a comparison of costs assumes: each number with its unit, its range, its source and its date.

Shipped in tco_assumptions.yaml; `changed` puts a user's value in its place and says so in the source.
"""

import math
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from orchestrator.config import Model
from orchestrator.errors import InputError

_FILE = Path(__file__).parent / "tco_assumptions.yaml"


class Assumption(Model):
    """One number that a comparison rests on."""

    id: str
    """Such as staff.run_fte."""
    value: float | None = None
    """None: unknown, or belongs to the case."""
    low: float | None = None
    """The end of its range that the sensitivity table tries; None: no range."""
    high: float | None = None
    """The other end."""
    unit: str
    """Such as USD/month; a share is between 0 and 1."""
    at_least: float = 0.0
    """A smaller value is refused."""
    at_most: float | None = None
    """A greater value is refused; a share is at most 1."""
    whole: bool = False
    """A count."""
    about: str
    """What it is."""
    source: str
    """Where it comes from."""
    date: str
    """Of the source, or when it was assumed."""

    @property
    def most(self) -> float:
        """The greatest value that is allowed."""
        return self.at_most if self.at_most is not None else 1.0 if self.unit.startswith("share") else math.inf


Assumptions = dict[str, Assumption]
"""By id, in the order of the file."""


@cache
def shipped() -> Assumptions:
    """Those of the file."""
    import yaml

    with _FILE.open(encoding="utf-8") as file:
        data = yaml.load(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    entries = (Assumption.model_validate({"date": data["date"], **entry}) for entry in data["assumptions"])
    return {entry.id: entry for entry in entries}


def changed(known: Assumptions, name: str, value: float, source: str, date: str, **other: Any) -> Assumptions:
    """The assumptions with another value. Raises InputError: an unknown name (the nearest), a value out of bounds.

    `other` may give low and high; without them the range is kept where it holds the value, else widened to it.
    """
    old = find(known, name)
    _check(old, value)
    ends = [end for end in (old.low, old.high) if end is not None]
    kept = {"low": min([value, *ends]), "high": max([value, *ends])} if ends else {}
    fields = {"value": value, "source": source, "date": date, **kept, **other}
    return {**known, name: old.model_copy(update=fields)}


def find(known: Mapping[str, Assumption], name: str) -> Assumption:
    """The assumption of that name. Raises InputError with the nearest names."""
    if name not in known:
        raise InputError(
            f"unknown assumption {name!r}; {_nearest(name, known)}",
            next_step="`orch cost assumptions` lists them all, with units and sources",
        )
    return known[name]


def _check(assumption: Assumption, value: float) -> None:
    low, high = assumption.at_least, assumption.most
    if not math.isfinite(value) or not low <= value <= high:
        bounds = f"between {low:g} and {high:g}" if math.isfinite(high) else f"at least {low:g}"
        raise InputError(f"{assumption.id}={value:g}: must be {bounds} ({assumption.unit}). {assumption.about}")
    if assumption.whole and value != int(value):
        raise InputError(f"{assumption.id}={value:g}: must be a whole number of {assumption.unit}")


def _nearest(name: str, known: Iterable[str]) -> str:
    import difflib

    names = list(known)
    inside = [full for full in names if name and name.split(".")[-1] == full.split(".")[-1]]
    close = list(dict.fromkeys([*inside, *difflib.get_close_matches(name, names, n=3, cutoff=0.5)]))[:4]
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"groups: {', '.join(dict.fromkeys(full.split('.')[0] for full in names))}"
