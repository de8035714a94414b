"""A predicted number with its parts and its interval, or why there is none. A prediction never looks measured."""

from orchestrator.catalog.unknown import Unknown
from orchestrator.config import Model

__all__ = ["Estimate", "Term", "Unknown"]


class Term(Model):
    """One part of a sum, with the arithmetic behind it, so that an engineer can disagree with it alone."""

    name: str
    """Such as activations."""
    amount: float
    """In the estimate's unit."""
    because: str
    """The formula with its numbers, such as `32 layers x 2 x 8 kv heads x 128 x 2 bytes`."""


class Estimate(Model):
    """A prediction: the sum of its terms, and the interval that holds it with a probability of about 90 %."""

    unit: str
    """Such as bytes, tokens/s, s, USD."""
    value: float
    """The middle."""
    low: float
    """The lower end."""
    high: float
    """The upper end."""
    terms: list[Term] = []
    """Parts that add up to the value, where it is a sum."""
    source: str = "predicted"
    """predicted, or where the measurement comes from; the two never share a column."""
