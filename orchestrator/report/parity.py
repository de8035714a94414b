"""How exports compare with the trained model, as the page of a run shows it: from what the parity stage left. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.report import charts
from orchestrator.report.run import GateReport, StageReport
from orchestrator.report.words import number, words

_WHOLE = "all"
_BUCKETS = ("short", "medium", "near_limit")
_LISTED_ROWS = 4
_FACTS = ("prompt_tokens_identical", "chat_template_identical", "stops", "refused")
Data = Mapping[str, Any]


def view(stage: StageReport | None, gates: Sequence[GateReport]) -> dict[str, Any] | None:
    """What `parity.html.j2` shows; None where nothing was measured."""
    if stage is None or not stage.metrics:
        return None
    targets = [name for name in dict.fromkeys(key.partition(".")[0] for key in stage.metrics) if name != "reference"]
    failed = {gate.name.removeprefix("parity."): gate for gate in gates if _failed_here(gate)}
    divergence = {target: _divergence(target, stage.metrics) for target in targets}
    return {
        "buckets": {bucket: _asked(bucket, stage.report) for bucket in _columns(stage.metrics)},
        "matrix": {target: [_cell(target, b, stage, failed) for b in _columns(stage.metrics)] for target in targets},
        "facts": {target: _facts(target, stage, failed) for target in targets},
        "compared_over": stage.report.get("comparison", {}),
        "notes": stage.report.get("notes", {}),
        "positions": stage.report.get("positions"),
        "task": words(stage.report.get("task", "exact_match")).lower(),
        "score": stage.metrics.get("reference.score"),
        "chart": charts.parity(divergence) if any(divergence.values()) else None,
        "broke": list(_broke(targets, stage, failed)),
        "worst": stage.report.get("worst", {}),
    }


def _failed_here(gate: GateReport) -> bool:
    return gate.verdict == "failed" and gate.name.startswith("parity.")


def _columns(metrics: Data) -> list[str]:
    """All prompts, then the buckets that any target has."""
    return [_WHOLE, *(bucket for bucket in _BUCKETS if any(f".{bucket}." in name for name in metrics))]


def _asked(bucket: str, report: Data) -> str:
    """`8 of 118 to 224 tokens`."""
    counts = report.get("prompts", {})
    count = sum(counts.values()) if bucket == _WHOLE else counts.get(bucket, 0)
    lengths = report.get("prompt_tokens", {}).get(bucket)
    if not lengths:
        return f"{count} prompts"
    span = f"{lengths[0]:,}" if lengths[0] == lengths[1] else f"{lengths[0]:,} to {lengths[1]:,}"
    return f"{count} of {span} tokens"


def _name(target: str, bucket: str, metric: str) -> str:
    return f"{target}.{metric}" if bucket == _WHOLE else f"{target}.{bucket}.{metric}"


def _divergence(target: str, metrics: Data) -> dict[str, float]:
    """Mean KL by bucket."""
    names = {bucket: _name(target, bucket, "kl_mean") for bucket in _columns(metrics)}
    return {bucket: metrics[name] for bucket, name in names.items() if name in metrics}


def _cell(target: str, bucket: str, stage: StageReport, failed: Data) -> dict[str, Any]:
    """KL, and under it what else was measured; `failed` where a gate on any of it has failed."""
    found = {
        metric: stage.metrics.get(_name(target, bucket, metric))
        for metric in ("kl_mean", "kl_p99", "logprob_diff", "exact_match", "degenerate")
    }
    rows = stage.report.get("differing", {}).get(target, [])
    refused = sum(bool(row["refused"]) for row in rows if bucket in (_WHOLE, row["bucket"]))
    bad = any(_name(target, bucket, metric) in failed for metric in found)
    return {**found, "refused": refused, "failed": bad}


def _facts(target: str, stage: StageReport, failed: Data) -> dict[str, Any]:
    """Metric -> (value, whether its gate failed), and the score's difference with its interval."""
    metrics = stage.metrics
    found = {metric: (metrics.get(f"{target}.{metric}"), f"{target}.{metric}" in failed) for metric in _FACTS}
    names = [f"{target}.score_diff{end}" for end in ("", "_low", "_high")]
    values = [metrics[name] for name in names] if names[0] in metrics else None
    return {**found, "score_diff": (values, any(name in failed for name in names))}


def _broke(targets: Sequence[str], stage: StageReport, failed: Mapping[str, GateReport]) -> Iterator[str]:
    """Sentences: the gates that failed, what explains the rest, then each export and bucket with other answers."""
    for name, gate in failed.items():
        yield f"The gate on {name} failed: {number(gate.value, name)}, {gate.limit}."
    if stage.metrics.get("reference.stops") == 0:
        yield "The trained model itself does not end every answer: no export of it can."
    for target in targets:
        if stage.metrics.get(f"{target}.prompt_tokens_identical") == 0:
            yield f"{target} reads prompts as other tokens than training did: look at this first, the rest follows."
        yield from _other_answers(target, stage)


def _other_answers(target: str, stage: StageReport) -> Iterator[str]:
    rows = stage.report.get("differing", {}).get(target, [])
    for bucket in _BUCKETS:
        found = [row for row in rows if row["bucket"] == bucket]
        if not found:
            continue
        asked = stage.report["prompts"][bucket]
        more = f" and {len(found) - _LISTED_ROWS} more" if len(found) > _LISTED_ROWS else ""
        listed = "; ".join(_row(row) for row in found[:_LISTED_ROWS])
        how_far = _by_how_much(target, bucket, stage)
        yield f"{target}, {_words(bucket)}: {len(found)} of {asked} answers differ{how_far}: {listed}{more}."


def _by_how_much(target: str, bucket: str, stage: StageReport) -> str:
    value = stage.metrics.get(f"{target}.{bucket}.kl_mean")
    return "" if value is None else f" (mean KL {number(value)} nats)"


def _row(row: Data) -> str:
    if row["refused"]:
        return f"row {row['row']} was refused"
    broken = f" ({', '.join(_words(kind) for kind in row['broken'])})" if row["broken"] else ""
    return f"row {row['row']} from token {row['first_difference'] + 1} on{broken}"


def _words(name: str) -> str:
    return name.replace("_", " ")
