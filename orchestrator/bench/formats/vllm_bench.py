"""`vllm bench serve --save-result --save-detailed`: one JSON object per measurement; read from vLLM 0.32.

Without --save-detailed the file holds no single request, and nothing but its own means and percentiles could be shown:
such a file is refused. Its start times are of a monotonic clock, so that only their differences mean something.
"""

import json
import time
from collections.abc import Mapping, Sequence
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

VERSION = "0.32"
_DATE = "%Y%m%d-%H%M%S"


def reads(data: Mapping[str, Any]) -> bool:
    """Whether this is such a file."""
    return {"model_id", "max_concurrency", "request_throughput", "mean_ttft_ms"} <= data.keys()


def read(data: Mapping[str, Any], path: Path) -> Imported:
    """One cell. ValueError where the file has no details."""
    if "ttfts" not in data or "start_times" not in data:
        raise ValueError("no single requests in it; run vllm bench with --save-detailed")
    rate, streams = data["request_rate"], data["max_concurrency"]
    closed = rate in ("inf", None)
    part = Part(
        mode="closed" if closed else "open",
        concurrency=(streams or data["num_prompts"]) if closed else None,
        rate=None if closed else float(rate),
        records=[_record(data, index) for index in range(len(data["ttfts"]))],
    )
    created = time.mktime(time.strptime(data["date"], _DATE))
    settings = {name: data.get(name) for name in ("backend", "endpoint_type", "burstiness", "num_prompts", "label")}
    return imported("vllm_bench", None, path, url=data.get("base_url") or "", model=data["model_id"], created=created,
                    settings=settings, parts=[part])  # fmt: skip


def _record(data: Mapping[str, Any], index: int) -> Record:
    sent = int(data["start_times"][index] * SECOND)
    error = (data.get("errors") or [""] * (index + 1))[index]
    if error:
        return failed(index, sent, sent, error)
    deltas = [sent + int(data["ttfts"][index] * SECOND)]
    for gap in data["itls"][index]:
        deltas.append(deltas[-1] + int(gap * SECOND))
    return success(index, sent, deltas, deltas[-1], data["input_lens"][index], data["output_lens"][index])


def files(result: Result, load: Load) -> dict[str, str]:
    """One file per cell; a single one has the name that was asked for."""
    cells = done(result)
    return {suffix(cell) if len(cells) > 1 else "": json.dumps(_written(result, cell, load)) + "\n" for cell in cells}


def _written(result: Result, cell: Cell, load: Load) -> dict[str, Any]:
    records, measurement = kept(cell, load)
    successes, summary = good(records), cell.summary
    assert summary is not None, "a finished cell has one"
    begun = measurement.start
    written: dict[str, Any] = {
        "date": time.strftime(_DATE, time.localtime(cell.started or result.created)),
        "endpoint_type": "openai-chat",
        "backend": "openai-chat",
        "label": result.name,
        "model_id": result.target(cell.target).model,
        "tokenizer_id": None,
        "num_prompts": len(records),
        "request_rate": "inf" if cell.rate is None else cell.rate,
        "burstiness": 1.0,
        "max_concurrency": cell.concurrency,
        "duration": summary.duration_s,
        "completed": len(successes),
        "failed": len(records) - len(successes),
        "total_input_tokens": summary.prompt_tokens,
        "total_output_tokens": summary.completion_tokens,
        "request_throughput": summary.requests_per_s,
        "request_goodput": summary.goodput_per_s,
        "output_throughput": summary.output_tokens_per_s,
        "total_token_throughput": summary.output_tokens_per_s + summary.input_tokens_per_s,
        "input_lens": [record.prompt_tokens or 0 for record in records],
        "output_lens": [record.completion_tokens or 0 for record in records],
        "ttfts": [(record.content[0] - record.sent) / SECOND if record.content else 0.0 for record in records],
        "itls": [gaps_s(record) for record in records],
        "start_times": [(record.sent - begun) / SECOND for record in records],
        "generated_texts": [record.text or "" for record in records],
        "errors": [failure(record) or "" for record in records],
    }
    return written | _spreads(successes)


def _spreads(records: Sequence[Record]) -> dict[str, float]:
    import numpy as np

    tpot = [
        (r.content[-1] - r.content[0]) / (r.completion_tokens - 1)
        for r in records
        if len(r.content) > 1 and (r.completion_tokens or 0) > 1
        if r.completion_tokens
    ]
    found: dict[str, float] = {}
    for name, values in (
        ("ttft", [record.content[0] - record.sent for record in records if record.content]),
        ("tpot", tpot),
        ("itl", [gap * SECOND for record in records for gap in gaps_s(record)]),
    ):
        ms = np.asarray(values or [0.0]) / 1e6
        found |= {
            f"mean_{name}_ms": float(ms.mean()),
            f"median_{name}_ms": float(np.median(ms)),
            f"std_{name}_ms": float(ms.std()),
            f"p99_{name}_ms": float(np.percentile(ms, 99)),
        }
    return found
