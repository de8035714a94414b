"""What a client reported, held against what the mock server knows; pure.

An error is reported minus true. True TTFT: from the kernel's receive timestamp of the complete request to right before
the send of the first token; true ITL: between the sends. The way through the loopback interface, some microseconds, is
in the error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mock_server import Answer

MS = 1e6
"""ns"""


@dataclass(frozen=True)
class Reported:
    """One successful request, as a client's result file tells it."""

    number: int
    """The server's number of it."""
    ttft_ns: float
    itl_ns: Sequence[float] = ()
    """One for each token after the first, or their mean alone where the client tells no more."""


@dataclass(frozen=True)
class Outcome:
    """What a client's result files say of one run."""

    reported: list[Reported]
    duration_s: float
    """From its first request to its last answer's end, as the client saw it."""
    itl_of_tokens: bool = True
    """False: means of requests."""
    intended_ns: Mapping[int, int] = field(default_factory=dict)
    """When its schedule wanted each request sent, by the server's number; empty where it does not say."""
    client: Mapping[str, Any] = field(default_factory=dict)
    """What it says of itself: its share of a core, how long bytes waited for it; empty where it does not."""


def errors(outcome: Outcome, answers: Sequence[Answer], skip: int) -> dict[str, float | int | None]:
    """The errors over the reported requests but the first `skip` ones of them to arrive, in ms.

    `overstated` is the median reported minus the median truth.
    """
    arrived = sorted(of(outcome, answers), key=lambda answer: answer.last_ns)
    truth = {answer.number: answer for answer in arrived[skip:]}
    kept = [(reported, truth[reported.number]) for reported in outcome.reported if reported.number in truth]
    if not kept:
        return {"requests": 0}
    told = np.array([reported.ttft_ns for reported, _ in kept]) / MS
    true = np.array([answer.ttft_ns for _, answer in kept]) / MS
    gaps = [gap for reported, answer in kept for gap in _itl_errors(reported, answer)]
    return {
        "requests": len(kept),
        "true_ttft_p50_ms": _at(true, 50),
        "reported_ttft_p50_ms": _at(told, 50),
        "reported_ttft_p99_ms": _at(told, 99),
        "ttft_overstated_ms": _at(told, 50) - _at(true, 50),
        "ttft_error_p50_ms": _at(abs(told - true), 50),
        "ttft_error_p99_ms": _at(abs(told - true), 99),
        "itl_error_p50_ms": _at(abs(np.array(gaps)) / MS, 50) if gaps else None,
        "itl_error_p99_ms": _at(abs(np.array(gaps)) / MS, 99) if gaps else None,
    }


def of(outcome: Outcome, answers: Sequence[Answer]) -> list[Answer]:
    """The reported ones: a client may have repeated its measurement, and reports the last."""
    reported = {row.number for row in outcome.reported}
    return [answer for answer in answers if answer.number in reported]


def _itl_errors(reported: Reported, answer: Answer) -> list[float]:
    true = answer.itl_ns
    if len(reported.itl_ns) == 1 and true:
        return [reported.itl_ns[0] - sum(true) / len(true)]
    return [told - gap for told, gap in zip(reported.itl_ns, true, strict=True)]


def send_errors(outcome: Outcome, answers: Sequence[Answer], rate: float, stall: Sequence[int]) -> dict[str, float]:
    """How far the requests' arrivals were from the schedule, in ms, all in all and while the server did nothing.

    The schedule is the one that the client recorded. Where it records none, an even one of `rate` was asked for, and it
    counts from the median before the stall, so that a constant delay is no error.
    """
    arrivals = sorted(answers, key=lambda answer: answer.first_ns)
    times = np.array([answer.first_ns for answer in arrivals], dtype=np.int64)
    if outcome.intended_ns:
        away = times - np.array([outcome.intended_ns[answer.number] for answer in arrivals], dtype=np.int64)
    else:
        offsets = (times - times[0]) - np.arange(len(times)) * (1e9 / rate)
        away = offsets - np.median(offsets[times < stall[0]])
    stalled = (times >= stall[0]) & (times <= stall[1])
    return {
        "requests": len(times),
        "send_error_p50_ms": _at(abs(away) / MS, 50),
        "send_error_p99_ms": _at(abs(away) / MS, 99),
        "arrived_in_stall": int(stalled.sum()),
        "send_error_in_stall_p99_ms": _at(abs(away[stalled]) / MS, 99) if stalled.any() else float("nan"),
    }


def _at(values: "np.ndarray[Any, Any]", percent: float) -> float:
    return round(float(np.percentile(values, percent)), 4)
