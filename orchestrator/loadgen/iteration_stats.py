"""TensorRT-LLM's own statistics: a JSON list of what its steps did since the list was last read, which empties it.

It has no totals but the number of the last step. An empty list says that no step was made since. The names are those
of its `trtllm-serve` documentation; a field that a build leaves out is unknown.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def values(text: str) -> dict[str, float | None] | None:
    """Numbers by the names of `EngineMetrics`; None for a text that is not such a list."""
    try:
        steps = json.loads(text)
    except ValueError:
        return None
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        return None
    return _of_steps(steps) if steps else {}


def _of_steps(steps: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    last, cache = steps[-1], steps[-1].get("kvCacheStats") or {}
    blocks = cache.get("maxNumBlocks")
    batches = [(step.get("inflightBatchingStats") or {}).get("numScheduledRequests") for step in steps]
    counted = [float(batch) for batch in batches if batch is not None]
    return {
        "running": last.get("numActiveRequests"),
        "waiting": last.get("numQueuedRequests"),
        "kv_cache_usage": cache.get("usedNumBlocks", 0) / blocks if blocks else None,
        "batch_size": sum(counted) / len(counted) if counted else None,
        "steps_total": last.get("iter"),
    }
