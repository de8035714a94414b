"""What benchmarks in the store have measured of a target that a plan predicts: the same export on the same hardware."""

from collections.abc import Iterator, Sequence
from typing import Any

from orchestrator import gpus
from orchestrator.planner.forecast import MeasuredLoad
from orchestrator.planner.layouts import Slot
from orchestrator.planner.plan import PlannedStage
from orchestrator.store.store import Store


def loads(
    store: Store,
    planned: Sequence[PlannedStage],
    name: str,
    engine: str,
    quantization: str,
    slot: Slot | None,
    usd_per_hour: float | None,
) -> list[MeasuredLoad]:
    """The loads of the newest benchmark of the same export, by its digest, on the same kind of accelerator.

    [] when there is none. With another digest of the export, the model or its format would be another.
    """
    export = next((stage for stage in planned if stage.name == "export"), None)
    if export is None or not export.reused_from:
        return []
    for run in store.runs_of_stage(export.digest):
        for result in store.benchmarks(1, run=run):
            target = next((one for one in result["targets"] if one["name"] == name), None)
            wanted = (engine, quantization, slot.kind if slot else None)
            if target and (target.get("engine"), target.get("quantization"), _kind(target)) == wanted:
                found = list(_loads(result, name, usd_per_hour))
                if found:
                    return found
    return []


def _kind(target: dict[str, Any]) -> str | None:
    """The recipe's word for the accelerator that it ran on; None: a CPU."""
    found = (target.get("hardware") or {}).get("gpus") or []
    return gpus.kind(found[0]["name"], found[0].get("memory_bytes")) if found else None


def _loads(result: dict[str, Any], name: str, usd_per_hour: float | None) -> Iterator[MeasuredLoad]:
    for cell in sorted(result["cells"], key=lambda cell: (cell.get("rate") or 0, cell.get("concurrency") or 0)):
        summary = cell.get("summary")
        if cell["target"] != name or cell["state"] != "done" or not summary:
            continue
        rate = summary["output_tokens_per_s"]
        if rate <= 0:
            continue
        yield MeasuredLoad(
            source=f"measured by benchmark {result['id']}",
            concurrency=cell.get("concurrency"),
            rate=None if cell.get("concurrency") else cell.get("rate"),
            workload=cell["workload"],
            ttft=_mean(summary, "ttft"),
            tpot=_mean(summary, "tpot"),
            throughput=rate,
            usd_per_million=None if usd_per_hour is None else usd_per_hour / 3600 / rate * 1e6,
        )


def _mean(summary: dict[str, Any], name: str) -> float | None:
    spread = summary["latencies"].get(name)
    return spread["mean"] if spread else None
