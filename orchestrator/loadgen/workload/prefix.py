"""How a prompt begins: with a prefix that others share, and with a nonce that no other prompt has."""

import functools
import random
from dataclasses import dataclass

from orchestrator.loadgen.requests import NONCE
from orchestrator.loadgen.tokens import OPENER, Passages, Vocabulary

_KEYS = 1 << 40
"""Passages of prefixes are numbered from here on."""


def opened(prefix: str, text: str, *, nonce: bool) -> str:
    """The text behind its prefix and the mark of its nonce: what comes after the mark is in no cache."""
    return " ".join(part for part in (prefix, f"[{NONCE.decode()}]" if nonce else "", text) if part)


@dataclass(frozen=True, eq=False)
class Prefixes:
    """Common beginnings, some share of the talks has one.

    Each starts with `salt`, so that a measurement does not find in the cache what the one before it has left there;
    without a salt they are the same in every measurement.
    """

    passages: Passages
    vocabulary: Vocabulary
    tokens: int
    count: int
    share: float
    salt: str
    rng: random.Random

    def draw(self) -> int:
        """Number of a talk's prefix; -1: none."""
        return self.rng.randrange(self.count) if self.rng.random() < self.share else -1

    def text(self, number: int) -> str:
        """A prefix of `tokens` tokens."""
        return _text(self, number)


@functools.lru_cache(maxsize=1024)
def _text(prefixes: Prefixes, number: int) -> str:
    if prefixes.salt:
        opener, tokens = f"[{prefixes.salt}]", prefixes.tokens - prefixes.vocabulary.marker_tokens
    else:
        opener, tokens = OPENER, prefixes.tokens
    return opener + prefixes.passages.text(_KEYS + number, max(0, tokens))
