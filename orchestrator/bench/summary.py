"""The numbers of one cell, from the records of its measurement; pure.

Latencies are those of the successes that were sent in the steady window. Rates count what arrived in the window,
whichever request it belongs to (`loadgen/metrics/throughput.py`). Their 95 % intervals are percentile bootstraps over
requests: a request is drawn with all its inter-token latencies, since those of one answer are no independent values.

    closed loop    rate = requests in flight * (sum of tokens / sum of latencies), both sums over the drawn requests
    open loop      rate = (tokens of the drawn requests that arrived in the window) / window

A percentile has an interval only where at least `BEYOND` values lie on its far side; fewer say nothing about it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from orchestrator.bench.result import Client, EngineSample, Slo, Spread, Summary
from orchestrator.bench.steady import steadiness
from orchestrator.bench.timeline import timeline
from orchestrator.loadgen import metrics
from orchestrator.loadgen.load import Measurement
from orchestrator.loadgen.metrics import cached_tokens, cost, errors, goodput, throughput
from orchestrator.loadgen.record import Record, failure
from orchestrator.stats import GroupedPercentiles, draws, rate, share_interval

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

RATES = ("requests_per_s", "output_tokens_per_s", "input_tokens_per_s")
SHARES = (50, 90, 95, 99)
BEYOND = 5
RESAMPLES = 1000
FEWEST_RESAMPLES = 200
WORK = 5e6
"""Values times resamples for one latency; many values get fewer resamples, and need fewer: the interval is narrow."""


def summarize(
    measurement: Measurement,
    *,
    slo: Slo | None = None,
    usd_per_hour: float | None = None,
    engine: Sequence[EngineSample] = (),
    seed: int = 0,
) -> Summary:
    """The summary of a cell. `seed` decides the bootstrap's draws, so that the same records give the same intervals.

    A request that was never sent, since the run ended before an earlier turn did, is among the errors only.
    """
    start, end, filled = window(measurement)
    asked = [record for record in measurement.records if not record.warmup and record.sent <= end]
    sent = measured(measurement)
    good = [record for record in sent if failure(record) is None]
    everything = measurement.records
    output = throughput.output_tokens_per_s(everything, start, end)
    inputs = throughput.input_tokens_per_s(everything, start, end)
    per_s = throughput.streams_requests_per_s if _is_closed(sent) else throughput.requests_per_s
    rates = dict(zip(RATES, (per_s(everything, start, end), output, inputs), strict=True))
    samples = {name: Sample.of(good, values) for name, values in metrics.latencies().items()}
    intervals = _rate_intervals(sent, rates, start, end, seed)
    steady, note = steadiness(everything, start, end) if filled else (None, RAMP)
    kept = _kept(everything, slo)
    kept_sent = sum(not record.warmup and record.sent <= end for record in kept)
    if slo is not None:
        intervals["goodput"] = share_interval(kept_sent, len(sent))
    return Summary(
        requests=len(sent),
        succeeded=len(good),
        warmup_requests=sum(record.warmup for record in everything),
        duration_s=(end - start) / 1e9,
        latencies={name: _spread(sample, seed) for name, sample in samples.items() if sample.requests},
        **rates,
        intervals=intervals,
        prompt_tokens=sum(record.prompt_tokens or 0 for record in good),
        completion_tokens=sum(record.completion_tokens or 0 for record in good),
        cached_tokens=cached_tokens.total(good),
        reasoning_tokens=_reasoning(good),
        errors=errors.by_kind(asked),
        error_example=errors.example(asked),
        reconnects=sum(record.reconnected for record in sent),
        goodput=None if slo is None else rate(kept_sent, len(sent)),
        goodput_per_s=None if slo is None else per_s(kept, start, end),
        keeps_slo=None if slo is None or not sent else kept_sent >= slo.share * len(sent),
        usd_per_million_tokens=cost.usd_per_million_tokens(usd_per_hour, output),
        usd_per_million_total_tokens=cost.usd_per_million_tokens(usd_per_hour, output + inputs),
        steady=steady,
        steady_note=note,
        client=Client(**measurement.as_dict()) if measurement.workers else None,
        timeline=timeline(everything, start),
        engine=list(engine),
    )


RAMP = "too few requests to fill the streams again: the rates are of the whole run, its start and end included"


def measured(measurement: Measurement) -> list[Record]:
    """The requests that were sent in the window, failures included."""
    end = window(measurement)[1]
    inside = (record for record in measurement.records if not record.warmup and record.sent <= end)
    return [record for record in inside if failure(record) != "not_sent"]


def window(measurement: Measurement) -> tuple[int, int, bool]:
    """Start and end of the window that the numbers are of, ns, and whether it is the measurement's steady one.

    When no request was complete before the streams began to run dry, the window reaches to the end of the last one.
    """
    start, end = measurement.start, measurement.end
    ends = [record.ended for record in measurement.records if failure(record) is None and record.ended > start]
    if not ends or min(ends) <= end:
        return start, max(start, end), True
    return start, max(ends), False


def slo_limits(slo: Slo) -> dict[str, float]:
    """Latency -> limit in seconds, of those that an SLO sets."""
    return {name: limit for name, limit in slo.model_dump(exclude={"share"}).items() if limit is not None}


def _kept(records: Sequence[Record], slo: Slo | None) -> list[Record]:
    return [] if slo is None else [record for record in records if goodput.kept(record, slo_limits(slo))]


def _reasoning(records: Sequence[Record]) -> int | None:
    known = [record.reasoning_tokens for record in records if record.reasoning_tokens is not None]
    return sum(known) if known else None


@dataclass(frozen=True)
class Sample:
    """The values of one latency, and for each the number of its request among those that have any."""

    values: "npt.NDArray[np.float64]"
    groups: "npt.NDArray[np.intp]"
    requests: int

    @classmethod
    def of(cls, records: Sequence[Record], latency: Callable[[Record], list[float]]) -> "Sample":
        """The latency of all records."""
        import numpy as np

        found = [values for record in records if (values := latency(record))]
        lengths = [len(values) for values in found]
        flat = np.fromiter(chain.from_iterable(found), np.float64, sum(lengths))
        return cls(flat, np.repeat(np.arange(len(found)), lengths), len(found))


def resamples_for(values: int) -> int:
    """How many resamples so many values allow."""
    return int(min(RESAMPLES, max(FEWEST_RESAMPLES, WORK / max(values, 1))))


def supported(share: float, values: int) -> bool:
    """Whether enough values lie beyond the percentile for an interval."""
    return values * min(share, 100 - share) / 100 >= BEYOND


def _spread(sample: Sample, seed: int) -> Spread:
    import numpy as np

    quantiles = [float(value) for value in np.percentile(sample.values, range(101))]
    return Spread(
        n=len(sample.values),
        mean=float(sample.values.mean()),
        min=quantiles[0],
        max=quantiles[-1],
        **{f"p{share}": quantiles[share] for share in SHARES},
        intervals=_spread_intervals(sample, seed),
        quantiles=quantiles,
    )


def _spread_intervals(sample: Sample, seed: int) -> dict[str, tuple[float, float]]:
    """Of the mean and of the percentiles that have enough values."""
    import numpy as np

    if sample.requests < 2 * BEYOND:
        return {}
    shares = [share for share in SHARES if supported(share, len(sample.values))]
    sums, counts = np.bincount(sample.groups, weights=sample.values), np.bincount(sample.groups)
    percentiles = GroupedPercentiles(sample.values, sample.groups, shares)
    found = [
        np.column_stack([times @ sums / (times @ counts), percentiles.of(times)])
        for times in draws(sample.requests, resamples_for(len(sample.values)), seed)
    ]
    return _middle_95(["mean", *(f"p{share}" for share in shares)], np.concatenate(found))


def _rate_intervals(
    sent: Sequence[Record], rates: Mapping[str, float], start: int, end: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Of each rate: how much it changes when other requests are drawn, times what was measured."""
    import numpy as np

    if len(sent) < 2 * BEYOND:
        return {}
    parts, busy = rate_parts(sent, start, end)
    known = [i for i, total in enumerate(parts.sum(axis=0)) if total > 0]
    relative = [
        (times @ parts[:, known] / parts.sum(axis=0)[known]) / (times @ busy / busy.sum())[:, None]
        for times in draws(len(sent), resamples_for(len(sent)), seed)
    ]
    found = _middle_95([RATES[i] for i in known], np.concatenate(relative))
    return {name: (low * rates[name], high * rates[name]) for name, (low, high) in found.items()}


def rate_parts(
    sent: Sequence[Record], start: int, end: int
) -> tuple["npt.NDArray[np.float64]", "npt.NDArray[np.float64]"]:
    """What each request gives to each of `RATES` (one row each), and the stream's time that it takes for it.

    A rate is proportional to sum of parts / sum of times. In an open loop the time is the same for all.
    """
    import numpy as np

    if _is_closed(sent):
        times = [max(1.0, float(record.ended - record.sent)) for record in sent]
        return np.array([_whole(record) for record in sent]), np.array(times)
    return np.array([_inside(record, start, end) for record in sent]), np.ones(len(sent))


def _is_closed(sent: Sequence[Record]) -> bool:
    """Whether each request was sent as soon as a stream was free, and not at a time of its own."""
    return all(record.intended == record.sent for record in sent)


def _whole(record: Record) -> tuple[float, float, float]:
    """What a request gives for the time that it holds a stream: itself, its output, its input."""
    if failure(record) is not None:
        return 0.0, 0.0, 0.0
    return 1.0, float(record.completion_tokens or 0), float(record.prompt_tokens or 0)


def _inside(record: Record, start: int, end: int) -> tuple[float, float, float]:
    """The same, as far as it arrived in the window."""
    of = (throughput.requests_per_s, throughput.output_tokens_per_s, throughput.input_tokens_per_s)
    requests, output, inputs = (rate([record], start, end) for rate in of)
    return requests, output, inputs


def _middle_95(names: Sequence[str], resampled: "npt.NDArray[np.float64]") -> dict[str, tuple[float, float]]:
    import numpy as np

    lows, highs = np.percentile(resampled, [2.5, 97.5], axis=0)
    return {name: (float(low), float(high)) for name, low, high in zip(names, lows, highs, strict=True)}
