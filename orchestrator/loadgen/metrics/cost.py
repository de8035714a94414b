"""Cost: US dollars per million tokens of hardware that is paid by the hour and kept this busy.

$/million tokens = (usd per hour / 3600) / (tokens per s) * 1,000,000
"""

UNIT = "usd per million tokens"


def usd_per_million_tokens(usd_per_hour: float | None, tokens_per_s: float) -> float | None:
    """None when the price is not known, or nothing was made."""
    if usd_per_hour is None or tokens_per_s <= 0:
        return None
    return usd_per_hour / 3600 / tokens_per_s * 1e6
