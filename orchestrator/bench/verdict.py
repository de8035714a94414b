"""Sentences about a change from A to B: which way it goes, by how much, and whether it was shown at all; pure."""

LATENCIES = ("ttft", "itl", "tpot", "e2e")
SHARES = (50, 95, 99)
_OTHERS = {
    "requests_per_s": ("requests/s", True, ("higher", "lower")),
    "output_tokens_per_s": ("output tokens/s", True, ("higher", "lower")),
    "input_tokens_per_s": ("input tokens/s", True, ("higher", "lower")),
    "goodput": ("goodput", True, ("higher", "lower")),
    "usd_per_million_tokens": ("cost per million tokens", False, ("higher", "lower")),
}
METRICS = (*(f"{name}_p{share}" for name in LATENCIES for share in SHARES), *_OTHERS)
"""What is compared."""


def label(metric: str) -> str:
    """How people write it: TTFT p95 for `ttft_p95`."""
    if metric in _OTHERS:
        return _OTHERS[metric][0]
    name, mark = metric.rsplit("_", 1)
    return f"{name.upper() if name != 'e2e' else 'end-to-end latency'} {mark}"


def more_is_better(metric: str) -> bool:
    """Whether a higher value is the better one."""
    return metric in _OTHERS and _OTHERS[metric][1]


def sentence(metric: str, change: float, interval: tuple[float, float] | None) -> str:
    """`B is 12 % [9, 15] slower in TTFT p95`, or `TTFT p95: no difference shown, -1 % [-4, 2]`."""
    if interval is None:
        return f"{label(metric)}: {percent(change)} in B, with too few requests to tell it from chance"
    low, high = interval
    if low <= 0 <= high:
        return f"{label(metric)}: no difference shown, {percent(change, interval)}"
    words = _OTHERS[metric][2] if metric in _OTHERS else ("slower", "faster")
    if change < 0:
        return f"B is {percent(-change, (-high, -low))} {words[1]} in {label(metric)}"
    return f"B is {percent(change, interval)} {words[0]} in {label(metric)}"


def percent(change: float, interval: tuple[float, float] | None = None) -> str:
    """`12 % [9, 15]`; a decimal more where the interval is narrow, or there is none."""
    narrow = interval is None or interval[1] - interval[0] < 0.02
    digits = 1 if narrow else 0
    texts = [f"{100 * value:.{digits}f}" for value in (change, *(interval or ()))]
    texts = [text.removeprefix("-") if float(text) == 0 else text for text in texts]
    return f"{texts[0]} %" + (f" [{texts[1]}, {texts[2]}]" if interval else "")
