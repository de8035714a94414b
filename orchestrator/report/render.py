"""One self-contained HTML page per run: no script, no font and no picture is loaded from anywhere.

    Path("report.html").write_text(render(run_report))

What a run does not have (it failed, or its recipe has no such section) is said in its place.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.report import bench, charts, exports, findings, parity
from orchestrator.report.run import RunReport, StageReport
from orchestrator.report.words import number, page, words

_TITLES = {
    "exact_match": "Exact match",
    "groundedness.per_1000": "Unsupported answers per 1,000",
    "perplexity": "Perplexity",
}
_LOWER_IS_BETTER = ("per_1000", "perplexity", "loss")


def render(run: RunReport) -> str:
    """The page of a run."""
    return page(
        "page.html.j2",
        run=run,
        absent={name: absence(run, name) for name in ("prepare", "data", "train", "evaluate", "parity", "benchmark")},
        scores=scores(run),
        headlines=headlines(run),
        loss_chart=_loss_chart(run),
        exports=exports.rows(run),
        parity=parity.view(run.stage("parity"), run.gates),
        benchmark=_benchmark(run),
        doubts=findings.doubts(run.benchmark) if run.benchmark else [],
        hardware=_measured(run, "hardware") or run.hardware,
    )


def absence(run: RunReport, name: str) -> str | None:
    """Why a stage has nothing to show, as a sentence; None when it has."""
    stage = run.stage(name)
    if stage is None:
        return f"This recipe has no {name} stage."
    if stage.state in ("succeeded", "reused"):
        return None
    if stage.state == "failed":
        return f"The {name} stage failed: {stage.error or 'no reason was recorded'}"
    stopped = next((other.name for other in run.stages if other.state in ("failed", "cancelled")), None)
    return f"Not reached: the run ended at {stopped}." if stopped else f"The {name} stage is {stage.state}."


def scores(run: RunReport) -> list[dict[str, Any]]:
    """Every metric of the evaluation that has a value for the base model as well."""
    stage = run.stage("evaluate")
    if stage is None:
        return []
    pairs = [(name, base) for name in stage.metrics if (base := _of_base(name, stage.metrics)) is not None]
    return [_score(name, base, stage) for name, base in pairs]


def _of_base(name: str, metrics: Mapping[str, float]) -> str | None:
    """The same metric of the base model: `perplexity.base`, or `groundedness.base.per_1000`."""
    first, _, rest = name.partition(".")
    return next((key for key in (f"{name}.base", f"{first}.base.{rest}") if key in metrics), None)


def _score(name: str, of_base: str, stage: StageReport) -> dict[str, Any]:
    metrics = stage.metrics
    values = {"base": metrics[of_base], "tuned": metrics[name]}
    found = {side: _interval(key, stage) for side, key in (("base", of_base), ("tuned", name))}
    intervals = {side: interval for side, interval in found.items() if interval is not None}
    majority, percent = metrics.get(f"{name}.majority"), name.startswith("exact_match")
    return {
        **values,
        "name": name,
        "title": _TITLES.get(name, words(name)),
        "interval": intervals.get("tuned"),
        "majority": majority,
        "better": "lower" if name.endswith(_LOWER_IS_BETTER) else "higher",
        "chart": charts.score(name, values, intervals=intervals, reference=majority, percent=percent),
    }


def _interval(name: str, stage: StageReport) -> Sequence[float] | None:
    """From the metrics `name.low` and `name.high`, or from what the task reports under `intervals`."""
    if f"{name}.low" in stage.metrics and f"{name}.high" in stage.metrics:
        return stage.metrics[f"{name}.low"], stage.metrics[f"{name}.high"]
    task = stage.report.get(name.partition(".")[0])
    found: Sequence[float] | None = task.get("intervals", {}).get(name) if isinstance(task, Mapping) else None
    return found


def headlines(run: RunReport) -> list[tuple[str, str, str]]:
    """The few numbers that sum the run up: (label, value, remark)."""
    found = [
        (score["title"], number(score["tuned"], score["name"]), f"base {number(score['base'], score['name'])}")
        for score in scores(run)
    ]
    return found + (bench.headlines(run.benchmark)[:2] if run.benchmark else _over_levels(run))


def _over_levels(run: RunReport) -> list[tuple[str, str, str]]:
    found, benchmark = [], run.stage("benchmark")
    worst = {key.split(".", 1)[-1]: value for key, value in (benchmark.metrics if benchmark else {}).items()}
    for label, name, remark in (
        ("TTFT p95", "ttft_p95", "slowest concurrency"),
        ("Tokens/s", "tokens_per_s", "best concurrency"),
    ):
        if name in worst:
            found.append((label, number(worst[name], name), remark))
    return found


def _loss_chart(run: RunReport) -> str | None:
    stage = run.stage("train")
    curve = stage.report.get("loss_curve") if stage else None
    return charts.loss(curve) if curve else None


def _benchmark(run: RunReport) -> dict[str, Any] | None:
    """The whole result where it is kept; else the levels that the stage reported."""
    return bench.parts(run.benchmark) if run.benchmark else _levels(run)


def _levels(run: RunReport) -> dict[str, Any] | None:
    levels = _measured(run, "levels")
    if not levels:
        return None
    streams = [level["concurrency"] for level in levels]
    ttft = [level["latencies"].get("ttft", {}) for level in levels]
    shares = {share: [spread.get(share, 0.0) * 1000 for spread in ttft] for share in ("p50", "p95", "p99")}
    rates = [level["tokens_per_s"] for level in levels]
    return {
        "levels": levels,
        "ttft_chart": charts.by_concurrency("ttft", "TTFT, ms", streams, shares),
        "rate_chart": charts.by_concurrency("rate", "output tokens/s", streams, {"tokens/s": rates}),
    }


def _measured(run: RunReport, key: str) -> Any:
    stage = run.stage("benchmark")
    return stage.report.get(key) if stage else None
