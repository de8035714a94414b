"""How far two next-token distributions are apart, when of each only the likeliest tokens are known. Pure."""

import math
from collections.abc import Mapping

_FLOOR = 1e-12


def kl_of_top(expected: Mapping[int, float], found: Mapping[int, float]) -> float:
    """KL(expected || found) in nats from two lists of token id -> natural log-probability; a lower bound.

    Tokens that both lists hold are compared one by one. One that only `expected` lists has in `found` at most the
    probability of the least token listed there, and all that neither lists is one tail: of all distributions that fit,
    the one that is nearest to `expected` counts. Complete lists give the divergence itself.
    """
    shared = [(math.exp(expected[token]), math.exp(found[token])) for token in expected.keys() & found.keys()]
    alone = sorted((math.exp(expected[token]) for token in expected.keys() - found.keys()), reverse=True)
    cap = math.exp(min(found.values()))
    left_expected = max(1 - math.fsum(p for p, _ in shared), _FLOOR)
    left_found = max(1 - math.fsum(q for _, q in shared), _FLOOR)
    pairs = list(shared)
    for p in alone:
        if p * left_found <= cap * left_expected:
            break  # below the cap, found's rest is shared out in proportion
        pairs.append((p, cap))
        left_expected, left_found = max(left_expected - p, _FLOOR), max(left_found - cap, _FLOOR)
    rest = (left_expected, left_found)
    return max(0.0, math.fsum(p * math.log(max(p, _FLOOR) / max(q, _FLOOR)) for p, q in [*pairs, rest]))


def logprob_gap(token: int, expected: Mapping[int, float], found: Mapping[int, float]) -> float:
    """|difference| of one token's log-probability in nats; a token that is not listed counts as the least listed."""
    return abs(expected.get(token, min(expected.values())) - found.get(token, min(found.values())))
