"""How one cell differs from another in each metric, with intervals from a paired bootstrap; pure.

What is drawn again are prompts, for A and B alike, with all their requests: long and short prompts cancel out, and
what remains is the difference between the two targets. Prompts that only one of them has sent (the faster one gets
further) are drawn for that one alone; without shared prompts A and B are independent. With fewer than `FEW_PROMPTS`
prompts, each of which was sent many times, a sending takes the place of a prompt.

Prompts that follow each other are drawn together, as one of at most `BLOCKS` blocks: requests that run at the same
time share what happens to the server, and a bootstrap that drew them singly would take a stall for a difference. Where
neighbouring blocks are still alike (correlation r of their latencies), all intervals are widened by
sqrt((1 + r) / (1 - r)), as for a mean of such values.

    change   value of B / value of A - 1; its interval lies between the 2.5th and the 97.5th percentile of the resamples
    p value  the larger one of: twice the share of resamples beyond 0; and that of Student's t, log(B / A) over its
             standard error
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Literal

from orchestrator.bench.result import Slo, Summary
from orchestrator.bench.summary import (
    BEYOND,
    RATES,
    RESAMPLES,
    Sample,
    measured,
    rate_parts,
    resamples_for,
    slo_limits,
    supported,
    window,
)
from orchestrator.bench.verdict import LATENCIES, SHARES, more_is_better, sentence
from orchestrator.config import Model
from orchestrator.loadgen import metrics
from orchestrator.loadgen.load import Measurement
from orchestrator.loadgen.metrics import goodput
from orchestrator.loadgen.record import Record, failure
from orchestrator.stats import (
    GroupedPercentiles,
    draws,
    lag_correlation,
    share_difference_p,
    share_interval,
    student_p,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FEW_PROMPTS = 30
BLOCKS = 50
FEWEST_BLOCKS = 20
"""With fewer than that nothing is said about chance."""
ALIKE = 0.2
"""Correlation of neighbours from which on blocks do not count as independent."""


class Change(Model):
    """One metric of B against A."""

    metric: str
    """`ttft_p95`, or a rate, `goodput` or `usd_per_million_tokens`; latencies are seconds."""
    a: float
    b: float
    change: float
    """b / a - 1."""
    interval: tuple[float, float] | None
    """Of the change, 95 %; None where there are no records, or too few, to tell it from chance."""
    p_value: float | None
    """Chance of such a change, or a larger one, between two measurements of the same thing."""
    better: Literal["higher", "lower"]
    verdict: str

    @property
    def worse_by(self) -> float:
        """The change in the bad direction; negative for an improvement."""
        return -self.change if self.better == "higher" else self.change


@dataclass(frozen=True)
class Side:
    """One of the two measurements, with what its numbers in the report are."""

    measurement: Measurement
    summary: Summary
    slo: Slo | None


@dataclass(frozen=True)
class Pairing:
    """Which block each measured request belongs to."""

    a: Sequence[int]
    b: Sequence[int]
    blocks: int
    shared: float
    """Share of the requests whose prompt the other side has sent as well, 0..1."""


def pair(a: Sequence[Record], b: Sequence[Record], *, same_prompts: bool = True) -> Pairing:
    """The blocks of both sides; not `same_prompts`: equal numbers do not mean equal prompts."""
    few = len({record.prompt for record in (*a, *b)}) < FEW_PROMPTS
    ours, theirs = _units(a, "a" if not same_prompts else "", few), _units(b, "b" if not same_prompts else "", few)
    both = set(ours) & set(theirs)
    order = {unit: place for place, unit in enumerate(dict.fromkeys(chain(_as_sent(a, ours), _as_sent(b, theirs))))}
    blocks = min(BLOCKS, len(order))
    block = {unit: place * blocks // len(order) for unit, place in order.items()}
    shared = sum(unit in both for unit in chain(ours, theirs)) / max(1, len(a) + len(b))
    return Pairing([block[unit] for unit in ours], [block[unit] for unit in theirs], blocks, shared)


def _units(records: Sequence[Record], side: str, few: bool) -> list[Hashable]:
    """What each request is a sending of: its prompt, or the so-many-th sending of it where there are few.

    Units of another `side` are others; requests whose prompt has no number share none either.
    """
    seen: Counter[int] = Counter()
    units: dict[int, Hashable] = {}
    for record in sorted(records, key=lambda record: record.index):
        number = seen[record.prompt] if few else 0
        seen[record.prompt] += 1
        units[id(record)] = (side, record.prompt, number) if record.prompt >= 0 else id(record)
    return [units[id(record)] for record in records]


def _as_sent(records: Sequence[Record], units: Sequence[Hashable]) -> Iterator[Hashable]:
    return (unit for _, unit in sorted(zip(records, units, strict=True), key=lambda pair: pair[0].index))


def changes(a: Side, b: Side, *, same_prompts: bool = True, seed: int = 0) -> tuple[list[Change], float]:
    """Every metric that both have, and the share of requests that were paired by their prompt."""
    sent = measured(a.measurement), measured(b.measurement)
    pairing = pair(*sent, same_prompts=same_prompts)
    values = _values(a.summary), _values(b.summary)
    names = [name for name, value in values[0].items() if value > 0 and values[1].get(name, 0) > 0]
    names = [name for name in names if name != "goodput" or a.slo == b.slo]
    enough = pairing.blocks >= FEWEST_BLOCKS and all(sent)
    parts = _Part(a, sent[0], pairing.a), _Part(b, sent[1], pairing.b)
    found = _resampled(*parts, pairing.blocks, seed) if enough else {}
    compared = [change(name, values[0][name], values[1][name], found.get(name), pairing.blocks) for name in names]
    return [*compared, *_no_goodput(a, b, (len(sent[0]), len(sent[1])))], pairing.shared


def _no_goodput(a: Side, b: Side, requests: tuple[int, int]) -> list[Change]:
    """The goodput of a B that keeps no limit at all, which has no ratio to be resampled: by Fisher's test."""
    before, after = a.summary.goodput, b.summary.goodput
    if not before or after != 0 or a.slo != b.slo or not all(requests):
        return []
    highest = share_interval(0, requests[1])[1] / before - 1
    chance = share_difference_p(round(before * requests[0]), requests[0], 0, requests[1])
    lost = change("goodput", before, 0.0, None)
    interval = (-1.0, highest)
    return [
        lost.model_copy(
            update={"interval": interval, "p_value": chance, "verdict": sentence("goodput", -1.0, interval)}
        )
    ]


def from_summaries(a: Summary, b: Summary) -> list[Change]:
    """Every metric that both have, without intervals: of results whose records are not at hand."""
    ours, theirs = _values(a), _values(b)
    return [change(name, ours[name], theirs[name], None) for name in ours if ours[name] > 0 and theirs.get(name, 0) > 0]


def _values(summary: Summary) -> dict[str, float]:
    """Metric -> its value, of those that are compared and known."""
    found = {
        f"{name}_p{share}": float(getattr(summary.latencies[name], f"p{share}"))
        for name in LATENCIES
        if name in summary.latencies
        for share in SHARES
    }
    others = {name: getattr(summary, name) for name in (*RATES, "goodput", "usd_per_million_tokens")}
    return found | {name: value for name, value in others.items() if value is not None}


def change(name: str, a: float, b: float, ratios: "npt.NDArray[np.float64] | None", blocks: int = 0) -> Change:
    """The change of one metric; `ratios` are those of B to A over the resamples of so many blocks."""
    relative = b / a - 1
    interval, p_value = None, None
    if ratios is not None:
        interval, p_value = _interval(ratios), _p_value(b / a, ratios, blocks)
    return Change(
        metric=name,
        a=a,
        b=b,
        change=relative,
        interval=interval,
        p_value=p_value,
        better="higher" if more_is_better(name) else "lower",
        verdict=sentence(name, relative, interval),
    )


def _interval(ratios: "npt.NDArray[np.float64]") -> tuple[float, float]:
    import numpy as np

    low, high = np.percentile(ratios, [2.5, 97.5]) - 1
    return float(low), float(high)


def _p_value(ratio: float, ratios: "npt.NDArray[np.float64]", blocks: int) -> float:
    import numpy as np

    beyond = 2 * min(float((ratios <= 1).mean()), float((ratios >= 1).mean()))
    error = float(np.log(ratios).std())
    distance = abs(float(np.log(ratio)))
    return min(1.0, max(beyond, student_p(distance / error, blocks - 1) if error > 0 else float(distance == 0)))


@dataclass(frozen=True)
class _Part:
    """One side, with its measured requests and the block of each."""

    side: Side
    sent: Sequence[Record]
    blocks: Sequence[int]


def _resampled(a: _Part, b: _Part, blocks: int, seed: int) -> dict[str, "npt.NDArray[np.float64]"]:
    """Metric -> its ratio of B to A in every resample, for those that have enough values."""
    import numpy as np

    found = _latency_ratios(a, b, blocks, seed)
    times = np.concatenate(list(draws(blocks, RESAMPLES, seed)))
    with np.errstate(divide="ignore", invalid="ignore"):
        rates_a, rates_b = _drawn_rates(a, times), _drawn_rates(b, times)
        found |= {name: rates_b[name] / rates_a[name] for name in rates_a if name in rates_b}
        found["usd_per_million_tokens"] = _price(b) / _price(a) / found["output_tokens_per_s"]
    wider = _widening(a, b, blocks)
    found = {name: np.median(ratios) * (ratios / np.median(ratios)) ** wider for name, ratios in found.items()}
    return {name: ratios for name, ratios in found.items() if np.isfinite(ratios).all() and (ratios > 0).all()}


def _widening(a: _Part, b: _Part, blocks: int) -> float:
    """How much wider the intervals have to be, since neighbouring blocks are alike; 1 when they are not."""
    import numpy as np

    sides = [_block_latency(a, blocks), _block_latency(b, blocks)]
    difference = sides[1] - sides[0]
    if np.isfinite(difference).sum() >= FEWEST_BLOCKS:  # what is alike since the prompts are cancels out
        sides = [difference]
    alike = max(lag_correlation([float(value) for value in side[np.isfinite(side)]]) for side in sides)
    return math.sqrt((1 + alike) / (1 - alike)) if alike > ALIKE else 1.0


def _block_latency(part: _Part, blocks: int) -> "npt.NDArray[np.float64]":
    """The log of each block's mean latency per token; nan where it has no success."""
    import numpy as np

    good = [(record, block) for record, block in zip(part.sent, part.blocks, strict=True) if failure(record) is None]
    weights = [(record.ended - record.intended) for record, _ in good]
    tokens = [record.completion_tokens or 0 for record, _ in good]
    owners = np.array([block for _, block in good], dtype=np.intp)
    with np.errstate(divide="ignore", invalid="ignore"):
        latency = np.bincount(owners, weights, blocks) / np.bincount(owners, tokens, blocks)
        return np.log(latency)


def _price(part: _Part) -> float:
    """Of the hardware, in dollars per million s, as the summary's cost and rate say it; nan when it is not known."""
    return (part.side.summary.usd_per_million_tokens or math.nan) * part.side.summary.output_tokens_per_s


def _latency_ratios(a: _Part, b: _Part, blocks: int, seed: int) -> dict[str, "npt.NDArray[np.float64]"]:
    import numpy as np

    found: dict[str, npt.NDArray[np.float64]] = {}
    for name, latency in metrics.latencies().items():
        samples = _sample(a, latency), _sample(b, latency)
        fewest = min(len(sample.values) for sample in samples)
        shares = [share for share in SHARES if supported(share, fewest)]
        if name not in LATENCIES or not shares or min(sample.requests for sample in samples) < 2 * BEYOND:
            continue
        ours, theirs = (GroupedPercentiles(sample.values, sample.groups, shares) for sample in samples)
        rows = draws(blocks, resamples_for(max(len(sample.values) for sample in samples)), seed)
        ratios = np.concatenate([theirs.of(times) / ours.of(times) for times in rows])
        found |= {f"{name}_p{share}": ratios[:, column] for column, share in enumerate(shares)}
    return found


def _sample(part: _Part, latency: Callable[[Record], list[float]]) -> Sample:
    """The values of the successes, grouped by block."""
    import numpy as np

    good = [(record, block) for record, block in zip(part.sent, part.blocks, strict=True) if failure(record) is None]
    sample = Sample.of([record for record, _ in good], latency)
    having = np.array([block for record, block in good if latency(record)], dtype=np.intp)
    return Sample(sample.values, having[sample.groups], sample.requests)


def _drawn_rates(part: _Part, times: "npt.NDArray[np.int64]") -> dict[str, "npt.NDArray[np.float64]"]:
    """Each rate, and the goodput, when blocks are drawn so many times."""
    import numpy as np

    start, end, _ = window(part.side.measurement)
    parts, busy = rate_parts(part.sent, start, end)
    limits = slo_limits(part.side.slo) if part.side.slo else {}
    kept = [float(goodput.kept(record, limits)) for record in part.sent]
    columns = np.column_stack([parts, kept, busy, np.ones(len(kept))])
    sums = np.array([np.bincount(part.blocks, weights=column, minlength=times.shape[1]) for column in columns.T])
    relative = dict(zip((*RATES, "goodput", "busy", "requests"), (times @ sums.T / columns.sum(axis=0)).T, strict=True))
    found = {name: getattr(part.side.summary, name) * relative[name] / relative["busy"] for name in RATES}
    share = part.side.summary.goodput
    return found if share is None else found | {"goodput": share * relative["goodput"] / relative["requests"]}
