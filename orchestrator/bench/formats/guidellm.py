"""GuideLLM's `benchmarks.json`: one file with all measurements of a run; read from GuideLLM 0.8.1.

Of a request it keeps the times of the first and the last token, none between them: an imported result has no ITL, and
TPOT is what GuideLLM calls inter-token latency.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.bench.formats.base import SECOND, Imported, Load, Part, done, failed, good, imported, kept, success
from orchestrator.bench.result import Cell, Result
from orchestrator.loadgen.record import Record, failure
from orchestrator.stats import mean, percentile

VERSION = "0.8.1"
_SHARES = {"p001": 0.1, "p01": 1, "p05": 5, "p10": 10, "p25": 25, "p50": 50, "p75": 75, "p90": 90, "p95": 95,
           "p99": 99, "p999": 99.9}  # fmt: skip


def reads(data: Mapping[str, Any]) -> bool:
    """Whether this is such a file."""
    return "benchmarks" in data and "guidellm_version" in (data.get("metadata") or {})


def read(data: Mapping[str, Any], path: Path) -> Imported:
    """A cell for each of its benchmarks."""
    benchmarks = data["benchmarks"]
    backend = benchmarks[0]["config"]["backend"]
    return imported(
        "guidellm", data["metadata"]["guidellm_version"], path, url=backend["target"], model=backend["model"] or "",
        created=benchmarks[0]["start_time"], settings={"data": data.get("config", {}).get("spec", {}).get("data")},
        parts=[_part(benchmark) for benchmark in benchmarks],
    )  # fmt: skip


def _part(benchmark: Mapping[str, Any]) -> Part:
    strategy, requests = benchmark["config"]["strategy"], benchmark["requests"]
    rate = strategy.get("rate")
    rows = [*((row, True) for row in requests["successful"]), *((row, False) for row in requests["errored"])]
    rows.sort(key=lambda row: row[0]["request_start_time"])
    streams = strategy.get("streams") or (1 if strategy["type_"] == "synchronous" else strategy["max_concurrency"])
    return Part(
        mode="open" if rate else "closed",
        rate=rate,
        concurrency=None if rate else streams,
        records=[_record(index, row, succeeded) for index, (row, succeeded) in enumerate(rows)],
        chunk_times=False,
    )


def _record(index: int, row: Mapping[str, Any], succeeded: bool) -> Record:
    timings = row["info"]["timings"]
    sent, ended = int(row["request_start_time"] * SECOND), int(row["request_end_time"] * SECOND)
    if not succeeded:
        return failed(index, sent, ended, str(row["info"].get("error")))
    times = [timings["first_token_iteration"], timings["last_token_iteration"]]
    deltas = [int(time * SECOND) for time in times if time is not None]
    return success(index, sent, deltas, ended, row["prompt_tokens"], row["output_tokens"])


def files(result: Result, load: Load) -> dict[str, str]:
    """One file."""
    benchmarks = [_benchmark(result, cell, load) for cell in done(result)]
    target = result.targets[0]
    spec = {
        "backend": {"kind": "openai_http", "target": target.url.removesuffix("/v1"), "model": target.model},
        "profile": benchmarks[0]["config"]["profile"],
        "data": [{"kind": "synthetic_text", "prompt_tokens": 1, "output_tokens": 1}],
    }
    written = {
        "metadata": {"version": 2, "guidellm_version": VERSION},
        "config": {"metadata": {"labels": {"exported_from": result.id}}, "spec": spec},
        "benchmarks": benchmarks,
        "conclusions": [],
    }
    return {"": json.dumps(written) + "\n"}


def _benchmark(result: Result, cell: Cell, load: Load) -> dict[str, Any]:
    records, _ = kept(cell, load)
    successes = good(records)
    start, end = min(r.sent for r in records) / SECOND, max(r.ended for r in records) / SECOND
    totals = _by_status(len(successes), len(records) - len(successes))
    return {
        "type_": "generative_benchmark",
        "config": _config(result, cell),
        "scheduler_state": {
            "node_id": 0, "num_processes": 1, "start_time": start, "end_time": end, "created_requests": len(records),
            "processed_requests": len(records), "successful_requests": len(successes),
            "errored_requests": len(records) - len(successes),
        },
        "scheduler_metrics": _scheduler(records, totals, start, end),
        "metrics": _metrics(successes, totals, end - start),
        "requests": {
            "successful": [_request(record) for record in successes],
            "errored": [_request(record) for record in records if failure(record) is not None],
            "incomplete": [],
            "total": None,
        },
        "warnings": [],
        "start_time": start,
        "end_time": end,
        "duration": end - start,
        "warmup_duration": 0.0,
        "cooldown_duration": 0.0,
    }  # fmt: skip


def _config(result: Result, cell: Cell) -> dict[str, Any]:
    target = result.target(cell.target)
    if cell.rate is None:
        strategy = {"type_": "concurrent", "worker_count": 1, "max_concurrency": cell.concurrency,
                    "streams": cell.concurrency, "rampup_duration": 0.0}  # fmt: skip
        profile: dict[str, Any] = {"kind": "concurrent", "streams": [cell.concurrency]}
    else:
        strategy = {"type_": "poisson", "worker_count": 1, "max_concurrency": None, "rate": cell.rate}
        profile = {"kind": "poisson", "rate": [cell.rate]}
    return {
        "id_": cell.id, "run_id": result.id, "run_index": cell.order, "strategy": strategy, "constraints": {},
        "sample_size": None, "warmup": {}, "cooldown": {}, "prefer_response_metrics": True, "slo": None,
        "confidence": 0.95, "warnings": [], "profile": profile, "requests": {"kind": "pytorch"},
        "backend": {"kind": "openai_http", "target": target.url.removesuffix("/v1"), "model": target.model},
        "environment": {},
    }  # fmt: skip


def _by_status(successful: Any, errored: Any) -> dict[str, Any]:
    total = successful + errored if isinstance(successful, int) else successful
    return {"successful": successful, "errored": errored, "incomplete": 0 if total is not successful else errored,
            "total": total}  # fmt: skip


_SCHEDULER_MEANS = (
    "queued_time_avg", "resolve_start_delay_avg", "resolve_targeted_start_delay_avg", "request_start_delay_avg",
    "request_targeted_start_delay_avg", "request_time_avg", "resolve_end_delay_avg", "resolve_time_avg",
    "finalized_delay_avg", "processed_delay_avg",
)  # fmt: skip


def _scheduler(records: Sequence[Record], totals: Mapping[str, Any], start: float, end: float) -> dict[str, Any]:
    late = mean([(record.sent - record.intended) / SECOND for record in records])
    means = dict.fromkeys(_SCHEDULER_MEANS, 0.0) | {
        "request_targeted_start_delay_avg": late,
        "request_time_avg": mean([(record.ended - record.sent) / SECOND for record in records]),
    }
    moments = ("start_time", "request_start_time", "measure_start_time")
    ends = ("measure_end_time", "request_end_time", "end_time")
    return {**dict.fromkeys(moments, start), **dict.fromkeys(ends, end), "requests_made": totals, **means}


_MEDIA = {
    "text": ("tokens", "words", "characters"),
    "image": ("tokens", "images", "pixels", "bytes"),
    "video": ("tokens", "frames", "seconds", "bytes"),
    "audio": ("tokens", "samples", "seconds", "bytes"),
    "tool_call": ("tokens", "mixed_tokens", "count"),
}
"""Sections of its metrics that have to be there, though nothing is known for them."""
_UNKNOWN = [f"{side}{of}" for side in ("input", "output", "total") for of in ("", "_per_second", "_concurrency")]


def _metrics(records: Sequence[Record], totals: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """The names are GuideLLM's; rates are one value over the whole, as no distribution of them was kept."""
    with_tokens = [record for record in records if record.content]
    e2e = [(record.ended - record.sent) / SECOND for record in records]
    prompts, outputs = [r.prompt_tokens or 0 for r in records], [r.completion_tokens or 0 for r in records]
    ttft = [(record.content[0] - record.sent) / 1e6 for record in with_tokens]
    per_request: dict[str, Sequence[float]] = {
        "request_latency": e2e,
        "request_dispatch_delay": [(record.sent - record.intended) / SECOND for record in records],
        "request_scheduled_latency": [(record.ended - record.intended) / SECOND for record in records],
        "turn_predecessor_delay": [0.0] * len(records),
        "turn_scheduling_delay": [0.0] * len(records),
        "request_streaming_iterations_count": [len(record.content) for record in records],
        "prompt_token_count": prompts,
        "output_token_count": outputs,
        "total_token_count": [a + b for a, b in zip(prompts, outputs, strict=True)],
        "time_to_first_token_ms": ttft,
        "time_to_first_output_token_ms": ttft,
        "time_per_output_token_ms": [1000 * t / n for t, n in zip(e2e, outputs, strict=True) if n],
        "inter_token_latency_ms": [_tpot_ms(r) for r in with_tokens if (r.completion_tokens or 0) > 1],
        "time_to_last_round_trip_ms": [],
        "avg_round_trip_time_ms": [],
        "output_tokens_per_iteration": [1.0] * len(records),
        "iter_tokens_per_iteration": [1.0] * len(records),
        "requests_per_second": [len(records) / seconds],
        "request_concurrency": [sum(e2e) / seconds],
        "prompt_tokens_per_second": [sum(prompts) / seconds],
        "output_tokens_per_second": [sum(outputs) / seconds],
        "tokens_per_second": [(sum(prompts) + sum(outputs)) / seconds],
    }
    spread = {name: _spreads(values) for name, values in per_request.items()}
    first_turns = _spread([(record.sent - record.intended) / SECOND for record in records])
    media = {name: {part: dict.fromkeys(_UNKNOWN) for part in parts} for name, parts in _MEDIA.items()}
    return {"request_totals": totals, **spread, "root_dispatch_delay": first_turns, **media}


def _tpot_ms(record: Record) -> float:
    return (record.content[-1] - record.content[0]) / 1e6 / ((record.completion_tokens or 2) - 1)


def _spreads(values: Sequence[float]) -> dict[str, Any]:
    of = _spread(values)
    return {"successful": of, "errored": _spread([]), "incomplete": _spread([]), "total": of}


def _spread(values: Sequence[float]) -> dict[str, Any]:
    some = list(values) or [0.0]
    return {
        "mean": mean(some), "median": percentile(some, 50), "mode": statistics.mode(some),
        "variance": statistics.pvariance(some), "std_dev": statistics.pstdev(some), "min": min(some),
        "max": max(some), "count": len(values), "total_sum": float(sum(values)),
        "percentiles": {name: percentile(some, share) for name, share in _SHARES.items()}, "pdf": None,
    }  # fmt: skip


def _request(record: Record) -> dict[str, Any]:
    start, end = record.sent / SECOND, record.ended / SECOND
    first = record.content[0] / SECOND if record.content else None
    last = record.content[-1] / SECOND if record.content else None
    failed_as = failure(record)
    timings = {
        "targeted_start": record.intended / SECOND, "queued": start, "dequeued": start, "scheduled_at": start,
        "resolve_start": start, "request_start": start, "first_request_iteration": first,
        "first_token_iteration": first, "first_output_token_iteration": first, "last_token_iteration": last,
        "last_request_iteration": last, "request_iterations": len(record.content),
        "token_iterations": len(record.content), "request_end": end, "resolve_end": end, "finalized": end,
    }  # fmt: skip
    info = {
        "request_id": str(record.index), "status": "errored" if failed_as else "completed", "timings": timings,
        "error": f"{failed_as}: {record.detail or ''}" if failed_as else None, "scheduler_start_time": start,
        "started_at": start, "completed_at": end,
    }  # fmt: skip
    tokens = {"input_metrics": record.prompt_tokens, "output_metrics": record.completion_tokens}
    return {
        "type_": "generative_request_stats", "request_id": str(record.index), "response_id": None,
        "request_args": None, "output": record.text, "info": info,
        **{name: {"text_tokens": count, "total_tokens": count} for name, count in tokens.items()},
        "request_start_time": start, "request_end_time": end, "request_latency": end - start,
        "prompt_tokens": record.prompt_tokens, "output_tokens": record.completion_tokens,
        "time_to_first_token_ms": None if first is None else 1000 * (first - start),
    }  # fmt: skip
