"""Whether a cell was measured in a steady state: the first half of its window and the second agree; pure.

The window is cut into blocks of time, as many on each side of its middle. A half differs from the other when the
blocks' median TTFT, or their output, differs by a Mann-Whitney test at 1 % *and* by a tenth. Blocks rather than
requests are compared, since requests that run together share what happens to them: a test on single requests would
call every passing stall a drift. Both conditions together keep false alarms well below one cell in fifty.
"""

from collections.abc import Sequence

from orchestrator.bench.timeline import tokens_per_step
from orchestrator.loadgen.metrics import ttft
from orchestrator.loadgen.record import Record, failure
from orchestrator.stats import mean, percentile, rank_sum_p

BLOCKS = 10
"""In each half, where there are enough requests."""
LEAST_BLOCKS = 5
"""In each half, for the test to be able to say anything at 1 %."""
REQUESTS_PER_BLOCK = 3
LEVEL = 0.01
DRIFT = 0.1
"""Smallest relative difference between the halves that matters."""


def steadiness(records: Sequence[Record], start: int, end: int) -> tuple[bool | None, str | None]:
    """Whether the window [start, end] was steady, and why not; None and a reason where too few requests can say it."""
    inside = [record for record in records if start <= record.intended <= end and failure(record) is None]
    blocks = min(BLOCKS, len(inside) // (2 * REQUESTS_PER_BLOCK))
    if blocks < LEAST_BLOCKS or end <= start:
        needed = 2 * LEAST_BLOCKS * REQUESTS_PER_BLOCK
        return None, f"too few requests to compare the halves of the window: {len(inside)} of at least {needed}"
    length = (end - start) / (2 * blocks)
    firsts, outputs = [], []
    for half in (start, start + blocks * length):
        firsts.append([_median_ttft(inside, half + i * length, length) for i in range(blocks)])
        outputs.append([n / length * 1e9 for n in tokens_per_step(records, round(half), length / 1e9, blocks)])
    notes = _drift("median TTFT", firsts[0], firsts[1], "ms"), _drift("output", outputs[0], outputs[1], "tokens/s")
    found = [note for note in notes if note is not None]
    return not found, "; ".join(found) or None


def _drift(what: str, first: Sequence[float | None], second: Sequence[float | None], unit: str) -> str | None:
    """A sentence when the blocks of one half differ from those of the other; blocks without a value are left out."""
    early, late = ([value for value in half if value is not None] for half in (first, second))
    if min(len(early), len(late)) < LEAST_BLOCKS:
        return None
    before, after = mean(early), mean(late)
    if before == 0 or abs(after / before - 1) <= DRIFT or rank_sum_p(early, late) >= LEVEL:
        return None
    word = "rose" if after > before else "fell"
    return f"{what} {word} from {before:.4g} {unit} in the first half of the window to {after:.4g} in the second"


def _median_ttft(records: Sequence[Record], start: float, length: float) -> float | None:
    """Of the requests of one block, ms."""
    values = [v for record in records if start <= record.intended < start + length for v in ttft.values(record)]
    return 1000 * percentile(values, 50) if values else None
