"""AIPerf: `profile_export_aiperf.json` (one per measurement) and beside it `profile_export.jsonl`, a line per request;
read from AIPerf 0.13.0.

The summary alone holds no single request: without the lines beside it the file is refused.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.bench.formats.base import (
    SECOND,
    Imported,
    Load,
    Part,
    done,
    failed,
    gaps_s,
    good,
    imported,
    kept,
    success,
    suffix,
)
from orchestrator.bench.result import Cell, Result
from orchestrator.loadgen.record import Record, failure

VERSION = "0.13.0"
_LINES = "profile_export.jsonl"
_OUR_LINES = "-requests.jsonl"
"""After the name of a summary that we wrote."""
_SCHEMA = "1.4"


def reads(data: Mapping[str, Any]) -> bool:
    """Whether this is such a file."""
    return {"aiperf_version", "input_config", "request_latency"} <= data.keys()


def read(data: Mapping[str, Any], path: Path) -> Imported:
    """One cell. ValueError where the lines beside it are missing."""
    own = path.with_name(f"{path.stem}{_OUR_LINES}")
    lines = own if own.exists() else path.with_name(path.name.replace("profile_export_aiperf.json", _LINES))
    if lines == path or not lines.exists():
        raise ValueError(f"{_LINES} with the single requests is not beside it")
    asked = data["input_config"]
    phase = next(phase for phase in asked["phases"] if phase.get("kind") == "profiling")
    rows = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines() if line.strip()]
    measured = [row for row in rows if row["metadata"].get("benchmark_phase") == "profiling"]
    rate = phase.get("rate")
    part = Part(
        mode="open" if rate else "closed",
        rate=rate,
        concurrency=None if rate else phase.get("concurrency"),
        records=[_record(index, row) for index, row in enumerate(measured)],
    )
    return imported(
        "aiperf", data["aiperf_version"], path, url=asked["endpoint"]["urls"][0], model=_model(asked), parts=[part],
        created=datetime.fromisoformat(data["start_time"]).replace(tzinfo=UTC).timestamp(),
        settings={"phase": phase, "datasets": asked.get("datasets")},
    )  # fmt: skip


def _model(asked: Mapping[str, Any]) -> str:
    return str(asked["models"]["items"][0]["name"])


def _record(index: int, row: Mapping[str, Any]) -> Record:
    about, values = row["metadata"], {name: metric["value"] for name, metric in (row.get("metrics") or {}).items()}
    sent, ended = about["request_start_ns"], about["request_end_ns"]
    if row.get("error") or about.get("was_cancelled") or "time_to_first_token" not in values:
        return failed(index, sent, ended, json.dumps(row.get("error")))
    deltas = [sent + int(values["time_to_first_token"] * 1e6)]
    for gap in values.get("inter_chunk_latency") or ():
        deltas.append(deltas[-1] + int(gap * 1e6))
    prompt, output = values.get("usage_prompt_tokens"), values.get("usage_completion_tokens")
    prompt = prompt if prompt is not None else values.get("input_sequence_length")
    return success(index, sent, deltas, ended, prompt, output if output is not None else values["output_token_count"])


def files(result: Result, load: Load) -> dict[str, str]:
    """Two files per cell: the summary, and the lines of its requests (`_OUR_LINES` after the name)."""
    cells, found = done(result), {}
    for cell in cells:
        records, _ = kept(cell, load)
        name = suffix(cell) if len(cells) > 1 else ""
        found[name] = json.dumps(_written(result, cell, records), indent=1) + "\n"
        found[f"{name}{_OUR_LINES}"] = "".join(f"{json.dumps(_line(record))}\n" for record in records)
    return found


def _line(record: Record) -> dict[str, Any]:
    about = {
        "session_num": record.index,
        "x_request_id": str(record.index),
        "turn_index": record.turn,
        "credit_issued_ns": record.intended,
        "request_start_ns": record.sent,
        "request_end_ns": record.ended,
        "benchmark_phase": "profiling",
        "was_cancelled": False,
    }
    kind = failure(record)
    if kind is not None:
        return {"metadata": about, "metrics": {}, "error": {"type": kind, "message": record.detail}}
    metrics = {
        "time_to_first_token": ((record.content[0] - record.sent) / 1e6 if record.content else None, "ms"),
        "inter_chunk_latency": ([1000 * gap for gap in gaps_s(record)], "ms"),
        "request_latency": ((record.ended - record.sent) / 1e6, "ms"),
        "usage_prompt_tokens": (record.prompt_tokens, "tokens"),
        "usage_completion_tokens": (record.completion_tokens, "tokens"),
        "input_sequence_length": (record.prompt_tokens, "tokens"),
        "output_sequence_length": (record.completion_tokens, "tokens"),
    }
    told = {name: {"value": value, "unit": unit} for name, (value, unit) in metrics.items() if value is not None}
    return {"metadata": about, "metrics": told, "error": None}


def _written(result: Result, cell: Cell, records: Sequence[Record]) -> dict[str, Any]:
    target, summary, successes = result.target(cell.target), cell.summary, good(records)
    assert summary is not None, "a finished cell has one"
    phase = {"name": "profiling", "kind": "profiling", "requests": len(records)}
    phase |= (
        {"type": "concurrency", "concurrency": cell.concurrency}
        if cell.rate is None
        else {"type": "poisson", "rate": cell.rate}
    )
    first, last = min(record.sent for record in records), max(record.ended for record in records)
    itl = [sum(gaps) / len(gaps) * 1000 for record in successes if (gaps := gaps_s(record))]
    return {
        "schema_version": _SCHEMA,
        "aiperf_version": VERSION,
        "benchmark_id": result.id,
        "request_throughput": {"unit": "requests/sec", "avg": summary.requests_per_s},
        "output_token_throughput": {"unit": "tokens/sec", "avg": summary.output_tokens_per_s},
        "request_count": {"unit": "requests", "avg": float(len(successes))},
        "request_latency": _metric([(r.ended - r.sent) / 1e6 for r in successes], "ms"),
        "time_to_first_token": _metric([(r.content[0] - r.sent) / 1e6 for r in successes if r.content], "ms"),
        "inter_token_latency": _metric(itl, "ms"),
        "output_sequence_length": _metric([r.completion_tokens or 0 for r in successes], "tokens"),
        "input_sequence_length": _metric([r.prompt_tokens or 0 for r in successes], "tokens"),
        "benchmark_duration": {"unit": "sec", "avg": summary.duration_s},
        "input_config": {
            "models": {"items": [{"name": target.model}]},
            "endpoint": {"urls": [target.url.removesuffix("/v1")], "type": "chat", "streaming": True},
            "phases": [phase],
        },
        "was_cancelled": False,
        "error_summary": [{"error_details": {"type": kind}, "count": n} for kind, n in summary.errors.items()],
        "start_time": _moment(first),
        "end_time": _moment(last),
    }  # fmt: skip


def _moment(ns: int) -> str:
    return datetime.fromtimestamp(ns / SECOND, UTC).replace(tzinfo=None).isoformat()


def _metric(values: Sequence[float], unit: str) -> dict[str, Any]:
    import numpy as np

    if not values:
        return {"unit": unit, "count": 0}
    array = np.asarray(values, dtype=float)
    shares = {f"p{share}": float(np.percentile(array, share)) for share in (1, 5, 10, 25, 50, 75, 90, 95, 99)}
    spread = {"avg": array.mean(), "min": array.min(), "max": array.max(), "std": array.std(), "sum": array.sum()}
    return {"unit": unit, **{name: float(value) for name, value in spread.items()}, **shares, "count": len(values)}
