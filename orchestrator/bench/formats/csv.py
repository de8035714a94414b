"""One row per cell, for spreadsheets. Times are seconds; empty: not known. Columns:

benchmark, target, engine, engine_version, quantization, model, workload, mode, streams, requests_per_s_offered, state,
cause, requests, succeeded, errors, TTFT and the other latencies with their percentiles and the ends of the 95 %
intervals (ttft_p95, ttft_p95_low, ttft_p95_high ...), the rates, goodput, cost, tokens, steady, client_limited.
"""

import csv
import io
from collections.abc import Mapping
from typing import Any

from orchestrator.bench.formats.base import Load
from orchestrator.bench.result import Cell, Result
from orchestrator.loadgen import metrics

_SHARES = ("mean", "p50", "p90", "p95", "p99")


def files(result: Result, load: Load) -> dict[str, str]:
    """The table; failed cells are rows too."""
    rows = [_row(result, cell) for cell in result.cells]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return {"": text.getvalue()}


def _row(result: Result, cell: Cell) -> Mapping[str, Any]:
    target = result.target(cell.target) if any(t.name == cell.target for t in result.targets) else None
    about = {name: getattr(target, name, None) for name in ("engine", "engine_version", "quantization", "model")}
    row: dict[str, Any] = {
        "benchmark": result.id,
        "target": cell.target,
        **about,
        "workload": cell.workload,
        "mode": cell.mode,
        "streams": cell.concurrency,
        "requests_per_s_offered": cell.rate,
        "state": cell.state,
        "cause": cell.cause,
    }
    return {**row, **_numbers(cell)}


def _numbers(cell: Cell) -> Mapping[str, Any]:
    names = [f"{latency}_{share}{end}" for latency in metrics.latencies() for share in _SHARES
             for end in ("", "_low", "_high")]  # fmt: skip
    row: dict[str, Any] = {"requests": None, "succeeded": None, "errors": None} | dict.fromkeys(names)
    summary = cell.summary
    if summary is None:
        return row
    row |= {"requests": summary.requests, "succeeded": summary.succeeded, "errors": sum(summary.errors.values())}
    for latency, spread in summary.latencies.items():
        for share in _SHARES:
            low, high = spread.intervals.get(share, (None, None))
            name = f"{latency}_{share}"
            row |= {name: getattr(spread, share), f"{name}_low": low, f"{name}_high": high}
    for name in (
        "duration_s", "requests_per_s", "output_tokens_per_s", "input_tokens_per_s", "goodput", "goodput_per_s",
        "usd_per_million_tokens", "prompt_tokens", "completion_tokens", "cached_tokens", "steady",
    ):  # fmt: skip
        row[name] = getattr(summary, name)
    row["client_limited"] = summary.client.limited if summary.client else None
    return row
