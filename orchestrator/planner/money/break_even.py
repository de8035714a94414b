"""From how many tokens a month self-hosting is cheaper than the API. Pure.

Self-hosting costs a fixed sum, a sum for each replica, which steps with the load, and a little for each token; the API
costs a sum for each token and a small fixed one. Between two steps the difference is a straight line, so the crossings
are solved and not searched. Because of the steps there may be several: from `first` on self-hosting is cheaper at some
loads, from `always` on at all of them.
"""

import math

from orchestrator.config import Model
from orchestrator.planner.money import fleet, tco
from orchestrator.planner.money.fleet import Values


class BreakEven(Model):
    """Where two curves of cost over tokens per month cross."""

    first: float | None = None
    """The fewest tokens a month at which self-hosting costs no more; None: at none."""
    always: float | None = None
    """Above so many it never costs more; None: there is no such load."""
    reason: str
    """In words."""
    capacity_checked: bool
    """False: the throughput of a replica is unknown, and no further replica was added."""


def break_even(v: Values, *, amortise_years: float | None = None) -> BreakEven:
    """Of the running costs; with `amortise_years`, what is paid once is spread over so many years."""
    line = _Line(v, amortise_years)
    first, always = line.first(), line.always()
    checked = math.isfinite(line.capacity)
    return BreakEven(first=first, always=always, reason=_words(line, first, always), capacity_checked=checked)


class _Line:
    """The difference self-hosting less API: fixed + replicas x step - tokens x gain."""

    def __init__(self, v: Values, amortise_years: float | None) -> None:
        # every part is linear, so two loads show it; the replicas are set apart
        unit = 1e6
        own, api = (tco.total(tco.own_costs(v, 0)), tco.total(tco.api_fixed(v)))
        self.step = tco.gpus(v, 1, 0)[0].usd
        self.fixed = own - api + self.step * v["serving.spare_replicas"]
        if amortise_years:
            self.fixed += (tco.total(tco.once("self-hosted", v)) - tco.total(tco.once("api", v))) / amortise_years / 12
        own_token = (tco.total(tco.own_costs(v, unit)) - own) / unit
        self.gain = tco.total(tco.api_tokens(v, unit)) / unit - own_token
        self.capacity = fleet.carried(v)
        self.fewest = int(v["serving.min_replicas"])

    @property
    def _net(self) -> float:
        """What a further full replica saves."""
        return self.gain * self.capacity - self.step if self.gain > 0 else -self.step

    def first(self) -> float | None:
        base = self.fixed + self.fewest * self.step
        if base <= 0:
            return 0.0
        if self.gain <= 0:
            return None
        if base / self.gain <= self.fewest * self.capacity:
            return base / self.gain
        if self._net <= 0:
            return None
        count = math.ceil(self.fixed / self._net)  # the first replica at whose full load the difference is gone
        return max((count - 1) * self.capacity, (self.fixed + count * self.step) / self.gain)

    def always(self) -> float | None:
        if self.first() is None or self._net <= 0 or self.gain <= 0:
            return None
        # just above (n - 1) x capacity the n-th replica is added; the last n at which that is dearer than the API:
        last = math.ceil((self.fixed + self.step) / self._net + 1) - 1
        if last <= self.fewest:
            return self.first()
        return (self.fixed + last * self.step) / self.gain


def _words(line: _Line, first: float | None, always: float | None) -> str:
    if first is None:
        if line.gain <= 0:
            return "self-hosting never breaks even: a token of the API costs less than its storage and egress"
        per_million = line.step / line.capacity * 1e6
        return (
            f"self-hosting never breaks even: the GPUs of a full replica cost ${per_million:,.3f} per million tokens,"
            f" more than the API's ${line.gain * 1e6:,.3f}"
        )
    if first == 0:
        return "self-hosting is cheaper from the first token"
    if always is None:
        return "self-hosting is cheaper at some loads only: with each further replica it costs more than the API again"
    return "self-hosting is cheaper above it" + ("" if always == first else ", but for just after a replica is added")


def hybrid_break_even(v: Values, low: float = 1e5, high: float = 1e14) -> float | None:
    """The fewest tokens a month, to a part in a million, at which the hybrid costs no more than the API; None: none.

    Searched by halving after a scan of sixteen loads a decade.
    """

    def over(tokens: float) -> float:
        return tco.total(tco.monthly("hybrid", v, tokens)) - tco.total(tco.monthly("api", v, tokens))

    steps = int(16 * math.log10(high / low))
    loads = [low * 10 ** (step / 16) for step in range(steps + 1)]
    end = next((number for number, tokens in enumerate(loads) if over(tokens) <= 0), None)
    if end is None or end == 0:
        return None if end is None else loads[0]
    below, above = loads[end - 1], loads[end]
    while above - below > 1e-6 * above:
        middle = (below + above) / 2
        below, above = (below, middle) if over(middle) <= 0 else (middle, above)
    return above
