"""A result as flat numbers with dotted names, for gates; pure.

Per target T: `T.c8.ttft_p95` at 8 streams and `T.r4.ttft_p95` at 4 requests/s (over several workloads: the
worst of them, and each as `T.WORKLOAD.c8.ttft_p95`); `T.ttft_p95` over all cells. A latency, `goodput` and `max_rate`
stand for the worst cell, a rate and a price for the best one; `errors` and `failed_cells` are sums. A cell that failed
has only `errors`.
"""

from collections.abc import Callable, Mapping, Sequence

from orchestrator.bench.result import Cell, Result, Summary
from orchestrator.loadgen import metrics as latency_metrics

PERCENTILES = ("p50", "p90", "p95", "p99")
NAMES = (
    *(f"*.{latency}_{share}" for latency in latency_metrics.latencies() for share in PERCENTILES),
    "*.tokens_per_s",
    "*.input_tokens_per_s",
    "*.requests_per_s",
    "*.goodput_per_s",
    "*.goodput",
    "*.usd_per_million_tokens",
    "*.errors",
    "*.failed_cells",
    "*.knee",
    "*.max_rate",
)
"""All of them; `*` stands for the target and the cell."""
_OVER_CELLS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "errors": sum,
    "goodput": min,
    "usd_per_million_tokens": min,
}
"""How the cells' values become one; the others by their largest."""


def metrics(result: Result) -> dict[str, float]:
    """Flat metrics of all targets, as the top of this file says."""
    found: dict[str, dict[str, list[float]]] = {}
    several = len({cell.workload for cell in result.cells}) > 1
    for cell in result.cells:
        load = f"c{cell.concurrency}" if cell.mode == "closed" else f"r{cell.rate or 0:g}"
        whole, here = cell.target, f"{cell.target}.{load}"
        keys = [whole, here, *([f"{cell.target}.{cell.workload}.{load}"] if several else [])]
        for name, value in _numbers(cell).items():
            for key in keys:
                found.setdefault(f"{key}.{name}", {}).setdefault(name, []).append(value)
    flat = {key: _OVER_CELLS.get(name, max)(values) for key, held in found.items() for name, values in held.items()}
    for target in dict.fromkeys(cell.target for cell in result.cells):
        failed = sum(cell.state == "failed" for cell in result.cells if cell.target == target)
        flat[f"{target}.failed_cells"] = float(failed)
    return flat | _found(result)


def _numbers(cell: Cell) -> dict[str, float]:
    summary = cell.summary
    errors = float(sum(summary.errors.values())) if summary else 0.0
    if summary is None or cell.state == "failed":
        return {"errors": errors}
    spreads = {
        f"{name}_{share}": getattr(spread, share) for name, spread in summary.latencies.items() for share in PERCENTILES
    }
    return {**spreads, **_rates(summary), "errors": errors}


def _rates(summary: Summary) -> dict[str, float]:
    values = {
        "tokens_per_s": summary.output_tokens_per_s,
        "input_tokens_per_s": summary.input_tokens_per_s,
        "requests_per_s": summary.requests_per_s,
        "goodput": summary.goodput,
        "goodput_per_s": summary.goodput_per_s,
        "usd_per_million_tokens": summary.usd_per_million_tokens,
    }
    return {name: value for name, value in values.items() if value is not None}


def _found(result: Result) -> dict[str, float]:
    """Of the searches: a rate that was looked for and not found is 0, so that a gate sees it."""
    found: dict[str, float] = {}
    for search in result.searches:
        values = {"knee": search.knee, "max_rate": (search.max_rate or 0.0) if result.slo else None}
        for name, value in values.items():
            if value is not None:
                key = f"{search.target}.{name}"
                found[key] = min(found.get(key, float(value)), float(value))
    return found
