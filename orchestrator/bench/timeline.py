"""What a cell looked like second by second; pure."""

from bisect import bisect_left
from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

from orchestrator.bench.result import Second
from orchestrator.loadgen.metrics import throughput, ttft
from orchestrator.loadgen.record import Record, failure
from orchestrator.stats import percentile

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

STEPS = 600
"""A longer cell gets longer steps, so that a timeline stays small."""


def timeline(records: Sequence[Record], start: int) -> list[Second]:
    """Steps of a second, or several, from `start` until the last request ended; the warm-up before is left out.

    `output_tokens` are those that arrived in the step, `in_flight` holds in its middle, and a TTFT belongs to the step
    in which its request was to be sent. Requests that began in the warm-up count as soon as they are seen here.
    """
    sent = [record for record in records if record.sent]
    seconds = max((record.ended - start for record in sent), default=0) / 1e9
    step = ceil(seconds / STEPS) or 1
    steps = ceil(seconds / step)
    starts = _per_step([record.sent + 1 for record in sent], start, step, steps)  # a step holds its first moment here
    ends = _per_step([record.ended for record in sent], start, step, steps)
    errors = _per_step([record.ended for record in sent if failure(record) is not None], start, step, steps)
    in_flight = _in_flight(sent, [start + round((i + 0.5) * step * 1e9) for i in range(steps)])
    tokens = tokens_per_step(sent, start, step, steps)
    firsts = _ttft_per_step(sent, start, step, steps)
    return [
        Second(
            t=float(i * step),
            sent=starts[i],
            ended=ends[i],
            errors=errors[i],
            output_tokens=float(tokens[i]),
            in_flight=in_flight[i],
            ttft_p50=percentile(firsts[i], 50) if firsts[i] else None,
            ttft_p95=percentile(firsts[i], 95) if firsts[i] else None,
        )
        for i in range(steps)
    ]


def tokens_per_step(records: Sequence[Record], start: int, step_s: float, steps: int) -> "npt.NDArray[np.float64]":
    """Output tokens of the successes that arrived in each of so many steps after `start`."""
    import numpy as np

    arrivals = [throughput.arrivals(record) for record in records if failure(record) is None]
    if not arrivals:
        return np.zeros(steps, dtype=np.float64)
    times = np.concatenate([np.asarray(found, dtype=np.int64) for found, _ in arrivals])
    weights = np.repeat([tokens for _, tokens in arrivals], [len(found) for found, _ in arrivals])
    found = np.bincount(_step(times, start, step_s, steps), weights=weights, minlength=steps + 1)
    return found[:steps].astype(np.float64)


def _per_step(times: Sequence[int], start: int, step: int, steps: int) -> list[int]:
    import numpy as np

    counts = np.bincount(_step(np.array(times, dtype=np.int64), start, step, steps), minlength=steps + 1)
    return [int(count) for count in counts[:steps]]


def _in_flight(records: Sequence[Record], moments: Sequence[int]) -> list[int]:
    sends, ends = sorted(record.sent for record in records), sorted(record.ended for record in records)
    return [bisect_left(sends, moment) - bisect_left(ends, moment) for moment in moments]


def _step(times: "npt.NDArray[np.int64]", start: int, step_s: float, steps: int) -> "npt.NDArray[np.int64]":
    """Number of the step that each time is in: (start, start + step] is 0; what is outside all gets `steps`."""
    import numpy as np

    number = np.ceil((times - start) / (step_s * 1e9)).astype(np.int64) - 1
    return np.where((number >= 0) & (number < steps), number, steps)


def _ttft_per_step(records: Sequence[Record], start: int, step: int, steps: int) -> list[list[float]]:
    found: list[list[float]] = [[] for _ in range(steps)]
    for record in records:
        number = (record.intended - start) // (step * 1_000_000_000)
        if 0 <= number < steps and failure(record) is None:
            found[number].extend(ttft.values(record))
    return found
