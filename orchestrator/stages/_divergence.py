"""How far two next-token distributions are apart, when of each only the likeliest tokens are known. Pure."""

import math
from collections.abc import Mapping

_FLOOR = 1e-12


def kl_of_top(expected: Mapping[int, float], found: Mapping[int, float]) -> float:
    """KL(expected || found) in nats from two lists of token id -> natural log-probability.

    The tokens that both lists hold are compared one by one, all others as one tail. Merging outcomes can only lower a
    divergence, so this is a lower bound; with 100 tokens of a confident model the tail holds next to nothing.
    """
    shared = expected.keys() & found.keys()
    pairs = [(math.exp(expected[token]), math.exp(found[token])) for token in shared]
    tail = tuple(max(1 - sum(side), _FLOOR) for side in zip(*pairs, strict=True)) if pairs else (1.0, 1.0)
    return max(0.0, math.fsum(p * math.log(max(p, _FLOOR) / max(q, _FLOOR)) for p, q in [*pairs, tail]))


def logprob_gap(token: int, expected: Mapping[int, float], found: Mapping[int, float]) -> float:
    """|difference| of one token's log-probability in nats; a token that is not listed counts as the least listed one."""
    return abs(expected.get(token, min(expected.values())) - found.get(token, min(found.values())))
