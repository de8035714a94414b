"""The exports of a run side by side: what each is, how near it is to the trained model, how fast it answers. Pure."""

from typing import Any

from orchestrator.report.run import RunReport

_MEASURED = {
    "bytes": "export",
    "kl_mean": "parity",
    "exact_match": "parity",
    "score_diff": "parity",
    "ttft_p95": "benchmark",
    "tokens_per_s": "benchmark",
}
"""Metric -> the stage that measures it, as TARGET.METRIC."""


def rows(run: RunReport) -> list[dict[str, Any]]:
    """One for each target of the recipe, also for those that are left out; a metric that was not measured is None."""
    return [
        {
            "target": target,
            **{metric: _of(run, stage, f"{target.name}.{metric}") for metric, stage in _MEASURED.items()},
        }
        for target in run.targets
    ]


def _of(run: RunReport, stage: str, metric: str) -> float | None:
    found = run.stage(stage)
    return found.metrics.get(metric) if found else None
