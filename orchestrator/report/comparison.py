"""A comparison of two benchmarks as a report shows it; from plain data, `Comparison.model_dump(mode="json")`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.report import bench_charts as charts
from orchestrator.report.bench_charts import Difference
from orchestrator.report.words import duration, number

Data = Mapping[str, Any]
_CHARTED = (("ttft_p95", "TTFT p95"), ("itl_p95", "ITL p95"), ("output_tokens_per_s", "Output tokens/s"))
_WORDS = {
    "requests_per_s": "requests/s",
    "output_tokens_per_s": "output tokens/s",
    "input_tokens_per_s": "input tokens/s",
    "goodput": "goodput",
    "usd_per_million_tokens": "cost per million tokens",
}


def view(found: Data) -> dict[str, Any]:
    """Charts over all cells, and for each cell what was shown and every number."""
    return {
        **{name: found[name] for name in ("title", "pairing", "warnings", "unmatched")},
        "charts": list(_charts(found)),
        "cells": [_cell(cell) for cell in found["cells"]],
    }


def is_shown(change: Data) -> bool:
    """Whether the change is more than chance: its interval has no zero in it."""
    return change["interval"] is not None and not change["interval"][0] <= 0 <= change["interval"][1]


def is_worse(change: Data) -> bool:
    """Whether B is on the bad side of A, by chance or not."""
    return bool((change["change"] < 0) == (change["better"] == "higher"))


def label(metric: str) -> str:
    """`TTFT p95` for ttft_p95."""
    if metric in _WORDS:
        return _WORDS[metric]
    name, _, share = metric.rpartition("_")
    return f"{'end-to-end' if name == 'e2e' else name.upper()} {share}"


def _charts(found: Data) -> Iterator[tuple[str, str, str]]:
    names = _short([cell["name"] for cell in found["cells"]])
    for metric, title in _CHARTED:
        rows = {
            name: Difference(change["change"], change["interval"], _tone(change))
            for name, cell in zip(names, found["cells"], strict=True)
            for change in cell["changes"]
            if change["metric"] == metric
        }
        if rows:
            yield title, "of B over A, with its 95 % interval", charts.differences(f"change-{metric}", rows)


def _short(names: Sequence[str]) -> list[str]:
    """`vllm, chat, 8 streams` without the parts that all names share; the load stays."""
    parts = [name.split(", ") for name in names]
    if len({len(each) for each in parts}) != 1:
        return list(names)
    told = [place for place, column in enumerate(zip(*parts, strict=True)) if len(set(column)) > 1]
    return [", ".join(each[place] for place in told or [len(each) - 1]) for each in parts]


def _tone(change: Data) -> str:
    """good, bad, or unclear."""
    if not is_shown(change):
        return "unclear"
    return "bad" if is_worse(change) else "good"


def _cell(cell: Data) -> dict[str, Any]:
    shown = [(change["verdict"], _tone(change)) for change in cell["changes"] if is_shown(change)]
    return {
        **{name: cell[name] for name in ("name", "note", "failed", "warnings")},
        "errors": cell["errors"]["verdict"] if cell["errors"] else None,
        "shown": shown,
        "rows": [_row(change) for change in cell["changes"]],
    }


def _row(change: Data) -> dict[str, str]:
    interval = change["interval"]
    return {
        "label": label(change["metric"]),
        "a": _value(change["metric"], change["a"]),
        "b": _value(change["metric"], change["b"]),
        "change": f"{100 * change['change']:+.1f} %",
        "interval": f"{100 * interval[0]:+.1f} to {100 * interval[1]:+.1f} %" if interval else "",
        "tone": _tone(change),
    }


def _value(metric: str, value: float) -> str:
    if metric == "goodput":
        return f"{100 * value:.1f} %"
    return number(value) if metric in _WORDS else duration(value)
