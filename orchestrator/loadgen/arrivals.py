"""When requests arrive: endless streams of times in seconds after the start; pure, the generator of chance is given.

All have the same mean rate and differ in how bunched they are. The coefficient of variation (cv) is the standard
deviation of the gaps between arrivals over their mean: 0 is constant, 1 is Poisson, above 1 comes in bursts.
"""

import itertools
import random
from collections.abc import Iterator


def constant(rate: float) -> Iterator[float]:
    """Equal gaps, 1/rate seconds each; the first arrival is at 0."""
    return (number / rate for number in itertools.count())


def poisson(rate: float, rng: random.Random) -> Iterator[float]:
    """Independent arrivals: exponential gaps."""
    return itertools.accumulate(rng.expovariate(rate) for _ in itertools.count())


def gamma(rate: float, cv: float, rng: random.Random) -> Iterator[float]:
    """Gamma-distributed gaps of mean 1/rate and the given coefficient of variation (vLLM's burstiness is 1/cv²)."""
    shape = 1 / cv**2
    return itertools.accumulate(rng.gammavariate(shape, 1 / (shape * rate)) for _ in itertools.count())


def bursts(rate: float, on_s: float, off_s: float, rng: random.Random) -> Iterator[float]:
    """Poisson arrivals during `on_s`, none during `off_s`, in turn; `rate` is the mean over both, from a burst on."""
    for busy in poisson(rate * (on_s + off_s) / on_s, rng):
        cycle, within = divmod(busy, on_s)
        yield cycle * (on_s + off_s) + within


def until(times: Iterator[float], *, duration_s: float | None = None, count: int | None = None) -> list[float]:
    """The times before `duration_s`, at most `count`; one of the two has to be given."""
    assert duration_s is not None or count is not None, "arrivals never end by themselves"
    early = times if duration_s is None else itertools.takewhile(lambda time: time < duration_s, times)
    return list(itertools.islice(early, count))
