"""What else differs between two results than what is compared, so that a change may not be the target's doing; pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.bench.result import Cell, Result, Target
from orchestrator.bench.verdict import percent
from orchestrator.loadgen.metrics import prompt_parity
from orchestrator.loadgen.record import Record, failure
from orchestrator.stats import mean

PROMPT_FACTS = ("kind", "file", "seed")
"""Of a workload, what decides which prompt has which number."""
LOAD_FACTS = ("nonce", "shared_prefix", "max_tokens", "output_exact", "arrivals", "input_tokens_mean", "endpoint")
SETTINGS = ("seed", "max_tokens", "temperature")
ANSWER_LENGTH = 0.02
"""Relative difference of the mean answer from which on throughput and end-to-end latency are not like for like."""


def between(a: Result, b: Result, targets: Mapping[str, str]) -> list[str]:
    """Sentences about hardware, driver, workloads, seed and settings; `targets` tells which belong together."""
    found = [text for ours, theirs in targets.items() for text in _targets(a.target(ours), b.target(theirs))]
    if a.source != b.source:
        found.append(f"A was measured by {a.source}, B by {b.source}: their definitions of a metric may differ")
    if a.slo != b.slo:
        found.append("the SLOs differ, so goodput is not compared")
    for name in a.workloads.keys() & b.workloads.keys():
        found += _unequal(f"workload {name}", a.workloads[name], b.workloads[name], (*PROMPT_FACTS, *LOAD_FACTS))
    found += _unequal("settings", a.settings, b.settings, SETTINGS)
    clients = [result.client_hardware or {} for result in (a, b)]
    return list(dict.fromkeys([*found, *_unequal("client", clients[0], clients[1], ("cpu", "cores"))]))


def same_prompts(a: Result, b: Result, workload: str) -> bool:
    """Whether equal prompt numbers mean equal prompts, as far as the results say."""
    ours, theirs = a.workloads.get(workload, {}), b.workloads.get(workload, {})
    return all(ours.get(key) == theirs.get(key) for key in PROMPT_FACTS)


def between_cells(
    a: Cell, b: Cell, ours: Sequence[Record], theirs: Sequence[Record], *, same_prompts: bool
) -> list[str]:
    """Sentences about the two measurements themselves; the records are those that were measured."""
    found = [text for side, cell in (("A", a), ("B", b)) for text in _doubts(side, cell)]
    parity = prompt_parity.compare(ours, theirs) if same_prompts else None
    if parity is not None and parity.exact_share < 0.9 and abs(parity.mean_difference) >= 0.5:
        found.append(
            f"the same prompts are {parity.mean_difference:+.1f} tokens in B ({parity.mean_tokens:.0f} in A):"
            " another chat template or tokenizer"
        )
    lengths = [_mean_answer(records) for records in (ours, theirs)]
    if lengths[0] and lengths[1] and abs(lengths[1] / lengths[0] - 1) > ANSWER_LENGTH:
        found.append(
            f"answers are {lengths[0]:.1f} tokens in A and {lengths[1]:.1f} in B"
            f" ({percent(lengths[1] / lengths[0] - 1)}): end-to-end latencies are not like for like"
        )
    return found


def _doubts(side: str, cell: Cell) -> Iterator[str]:
    if cell.summary is not None and cell.summary.client is not None and cell.summary.client.limited:
        yield f"the client was the limit in {side}: measure again with more workers"
    if cell.summary is not None and cell.summary.steady is False:
        yield f"{side} was not steady: {cell.summary.steady_note}"


def _mean_answer(records: Sequence[Record]) -> float | None:
    lengths = [record.completion_tokens or 0 for record in records if failure(record) is None]
    return mean(lengths) if lengths else None


def _targets(a: Target, b: Target) -> Iterator[str]:
    if (a.hardware is None) != (b.hardware is None):
        yield f"the hardware of {b.name} in {'A' if a.hardware is None else 'B'} is not known"
    elif a.hardware is not None and b.hardware is not None:
        yield from _unequal(f"hardware of {b.name}", _machine(a.hardware), _machine(b.hardware))
    if a.model != b.model:
        yield f"model: {a.model} in A, {b.model} in B"


def _machine(hardware: Mapping[str, Any]) -> dict[str, Any]:
    gpus = hardware.get("gpus") or []
    facts = {key: hardware.get(key) for key in ("cpu", "cores", "system")}
    return facts | {"GPUs": [gpu.get("name") for gpu in gpus], "driver": [gpu.get("driver") for gpu in gpus]}


def _unequal(what: str, a: Mapping[str, Any], b: Mapping[str, Any], keys: Sequence[str] | None = None) -> list[str]:
    """A sentence for each key that both have, with different values."""
    shared = [key for key in keys or a if key in a and key in b and not _equal(a[key], b[key])]
    return [f"{what}: {key} is {_text(a[key])} in A, {_text(b[key])} in B" for key in shared]


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, int | float) and isinstance(b, int | float):
        return abs(a - b) <= 0.02 * max(abs(a), abs(b))
    if isinstance(a, dict) and isinstance(b, dict):  # a salt is different in every run
        return {**a, "salt": None} == {**b, "salt": None}
    return bool(a == b)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
