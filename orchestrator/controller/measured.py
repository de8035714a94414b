"""What benchmarks in the store have measured of a target that a plan predicts: the same export on the same hardware."""

from collections.abc import Iterator, Sequence
from typing import Any

from orchestrator import gpus
from orchestrator.catalog.catalog import Catalog
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
    catalog: Catalog,
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
            same = target and (target.get("engine"), target.get("quantization")) == (engine, quantization)
            if target and same and _same_hardware(target, slot, catalog):
                found = list(_loads(result, name, slot.usd_per_hour if slot else None))
                if found:
                    return found
    return []


def _same_hardware(target: dict[str, Any], slot: Slot | None, catalog: Catalog) -> bool:
    """Whether it ran on the slot's kind of accelerator, by the driver's name for it; without a slot, on a CPU."""
    found = (target.get("hardware") or {}).get("gpus") or []
    if not found or slot is None:
        return not found and slot is None
    name = found[0]["name"]
    gpu = catalog.find_gpu(name)
    if gpu is not None and slot.gpu is not None:
        return gpu.kind == slot.gpu.kind
    return gpus.kind(name, found[0].get("memory_bytes")) == slot.kind


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
