"""The result of run.py as Markdown tables."""

import math
from collections import defaultdict
from typing import Any

COLUMNS = {
    "mean_jct_h": "mean JCT (h)",
    "p99_jct_h": "p99 JCT (h)",
    "mean_wait_h": "mean wait (h)",
    "p99_wait_h": "p99 wait (h)",
    "makespan_h": "makespan (h)",
    "allocation": "allocated",
    "worst_user_slowdown": "worst user's slowdown",
    "preemptions": "preemptions",
    "lost_gpu_h": "lost (GPU h)",
}


def render(result: dict[str, Any]) -> str:
    """All tables of a result."""
    parts = [f"{result['date']}, {result['hardware']['cpu']}, {result['hardware']['cores']} cores"]
    parts += simulation(result.get("simulation", []))
    if "packing" in result:
        parts.append(packing(result["packing"]))
    if "scale" in result:
        parts.append(scale(result["scale"]))
    return "\n\n".join(parts)


def simulation(rows: list[dict[str, Any]]) -> list[str]:
    """A table for each workload, load and error of the estimates: means over the seeds."""
    groups: dict[tuple[Any, ...], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[row["workload"], row["load"], row["sigma"], row["gpus"], row["jobs"]][row["policy"]].append(row)
    found = []
    for (workload, load, sigma, gpus, jobs), policies in groups.items():
        seeds = max(len(members) for members in policies.values())
        title = f"{workload}, load {load:g}, estimates off by sigma {sigma:g}: {gpus} GPUs, {jobs} jobs, {seeds} seeds"
        lines = [[name, *(_cell(key, members) for key in COLUMNS)] for name, members in policies.items()]
        found.append(title + "\n\n" + _table(["policy", *COLUMNS.values()], lines))
    return found


def packing(rows: list[dict[str, Any]]) -> str:
    """Percent of the GPUs that each packer allocates."""
    lines = [[row["packer"], f"{row['percent']:.1f}", f"{row['published'] or '-'}"] for row in rows]
    return _table(["packer", "allocated (%)", "published (%)"], lines)


def scale(rows: list[dict[str, Any]]) -> str:
    """Milliseconds of a decision."""
    keys = (
        "queued",
        "gpus",
        "running",
        "preemption",
        "mean_ms",
        "p50_ms",
        "p99_ms",
        "max_ms",
        "cpu_mean_ms",
        "cpu_p99_ms",
        "load_average",
    )
    return _table(list(keys), [[_number(row[key]) for key in keys] for row in rows])


def _cell(key: str, members: list[dict[str, Any]]) -> str:
    mean = math.fsum(row[key] for row in members) / len(members)
    return f"{100 * mean:.1f} %" if key == "allocation" else _number(mean)


def _number(value: float | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"


def _table(header: list[str], lines: list[list[str]]) -> str:
    rows = [header, ["---"] + ["---:"] * (len(header) - 1), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
