"""One self-contained HTML page per run: no script, no font and no picture is loaded from anywhere.

    Path("report.html").write_text(render(run_report))

What a run does not have (it failed, or its recipe has no such section) is said in its place.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.report import charts
from orchestrator.report.run import RunReport, StageReport
from orchestrator.units import Bytes

_SECONDS = ("ttft", "itl", "tpot", "e2e", "seconds")
_YES_NO = ("prompt_tokens_identical", "chat_template_identical", "stops")
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
        parity=_parity(run),
        benchmark=_benchmark(run),
        hardware=_measured(run, "hardware") or run.hardware,
    )


def page(template: str, **values: Any) -> str:
    """A template of this folder, filled; every value in it is escaped unless the template says otherwise."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"number": number, "words": words, "duration": duration, "moment": moment, "size": size}
    return environment.get_template(template).render(**values)


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
    benchmark = run.stage("benchmark")
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


def _parity(run: RunReport) -> dict[str, Any] | None:
    """Rows per export, in the order of the metrics, with the columns that any of them has."""
    stage = run.stage("parity")
    rows: dict[str, dict[str, float]] = {}
    for key, value in (stage.metrics if stage else {}).items():
        target, dot, metric = key.partition(".")
        if dot:
            rows.setdefault(target, {})[metric] = value
    if not rows:
        return None
    divergence = {target: row["kl_mean"] for target, row in rows.items() if "kl_mean" in row}
    columns = list(dict.fromkeys(metric for row in rows.values() for metric in row))
    return {
        "rows": rows,
        "columns": columns,
        "chart": charts.parity(divergence) if divergence else None,
        "worst": stage.report.get("worst", {}) if stage else {},
    }


def _benchmark(run: RunReport) -> dict[str, Any] | None:
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


def number(value: Any, name: str = "") -> str:
    """A number for reading, with the unit that its metric's name implies."""
    if value is None:
        return "–"
    if isinstance(value, bool) or name.endswith(_YES_NO):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    if any(name.rsplit(".", 1)[-1].startswith(unit) for unit in _SECONDS):
        return duration(value)
    if "exact_match" in name and abs(value) <= 1:
        return f"{100 * value:.1f} %"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def duration(seconds: float | None) -> str:
    """`840 µs`, `52.3 ms`, `1.24 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds is None:
        return "–"
    if seconds < 60:
        if seconds >= 1 or seconds == 0:
            return f"{seconds:.3g} s"
        return f"{seconds * 1000:.3g} ms" if seconds >= 0.001 else f"{seconds * 1e6:.3g} µs"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def moment(seconds: float | None) -> str:
    """A time since 1970 as UTC."""
    return "–" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def size(amount: int | None) -> str:
    """Memory in GiB."""
    return "unknown" if amount is None else str(Bytes.parse(f"{amount / 2**30:.1f}GiB"))


def words(name: str) -> str:
    """`removed_from_test` -> `Removed from test`."""
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:] if not text.startswith("kl ") else f"KL {text[3:]}"
