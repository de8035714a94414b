"""What `orch clusters` prints."""

import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from orchestrator.cli.show import console
from orchestrator.clusters import launching
from orchestrator.clusters.cluster import Cluster
from orchestrator.clusters.compare import Row
from orchestrator.clusters.launching import Written
from orchestrator.clusters.load import files, load_cluster
from orchestrator.errors import InfrastructureError, OrchError
from orchestrator.ray.checking import Checked, reachable

_NONE = "-"


def listed(home: Path, *, as_json: bool) -> None:
    """One row for a file, also for one that has problems."""
    with ThreadPoolExecutor(16) as pool:  # an address that nobody has takes seconds to say so
        rows = list(pool.map(lambda path: _plain(path, home), files(home)))
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table(
        "cluster", "address", "", "nodes", "accelerators", "$ per hour", "file", box=None, padding=(0, 2, 0, 0)
    )
    for row in rows:
        table.add_row(*_cells(row))
    console().print(
        table if rows else "no cluster file in clusters/ here, or in $ORCH_HOME; without one runs are local"
    )


def _plain(path: Path, home: Path) -> dict[str, Any]:
    try:
        cluster = load_cluster(path, home)
    except OrchError as error:
        return {"cluster": path.stem, "file": str(path), "problem": error.message}
    return {
        "cluster": path.stem,
        "file": str(path),
        "address": cluster.address,
        "reachable": reachable(cluster, home),
        "pools": [pool.model_dump(mode="json") for pool in cluster.nodes],
        "nodes": sum(pool.count for pool in cluster.nodes),
        "accelerators": _accelerators(cluster),
        "usd_per_hour": _price(cluster),
    }


def _accelerators(cluster: Cluster) -> dict[str, int]:
    found: Counter[str] = Counter()
    for pool in cluster.nodes:
        if pool.accelerator:
            found[pool.accelerator] += pool.count * pool.accelerators
    return dict(found)


def _price(cluster: Cluster) -> float | None:
    """Of all nodes; None where that of a pool is not known."""
    prices = [(pool.count, pool.usd_per_hour) for pool in cluster.nodes]
    known = [count * price for count, price in prices if price is not None]
    return sum(known) if known and len(known) == len(prices) else None


def _cells(row: dict[str, Any]) -> list[str]:
    name, file = f"[bold]{escape(row['cluster'])}[/]", escape(os.path.relpath(row["file"]))
    if "problem" in row:
        return [
            name,
            "[red]bad file[/]",
            "",
            _NONE,
            _NONE,
            _NONE,
            f"{file}; `orch clusters check {row['cluster']}` says why",
        ]
    kinds = ", ".join(f"{count} {kind}" for kind, count in row["accelerators"].items()) or "none"
    price = _NONE if row["usd_per_hour"] is None else f"{row['usd_per_hour']:,.2f}"
    state = "[green]reachable[/]" if row["reachable"] else "[dim]not running[/]"
    return [name, row["address"], state, str(row["nodes"]), kinds, price, file]


def checked(cluster: Cluster, found: Checked, *, as_json: bool) -> None:
    """Raises InfrastructureError where something is wrong."""
    if as_json:
        print(json.dumps(_as_data(cluster, found), indent=2))
    else:
        _table(cluster, found)
    if not found.is_well:
        count = len(found.problems) + sum(len(row.problems) for row in found.rows)
        raise InfrastructureError(
            f"cluster {cluster.name}: {count} problem{'s' if count > 1 else ''}",
            next_step="mend the nodes or the cluster's file, then check again",
        )


def written(cluster: Cluster, found: Written, *, apply: bool) -> None:
    """The files, and what is done with them."""
    for path in found.files:
        print(f"{path}{' (kept as it was edited; remove it to have it written again)' if path in found.edited else ''}")
    command = f"cd {found.folder} && {' '.join(launching.up_command(cluster))}"
    print(command if apply else f"nothing was started: read them, then --apply, or\n  {command}")


def _as_data(cluster: Cluster, found: Checked) -> dict[str, Any]:
    nodes = [
        {
            "node": row.seen.id,
            "address": row.seen.address,
            "head": row.seen.is_head,
            "pool": row.pool.name if row.pool else None,
            "labels": row.seen.labels,
            "clock_skew_s": row.seen.skew_s,
            "clock_skew_error_s": row.seen.skew_error_s,
            "report": row.seen.report.model_dump(mode="json") if row.seen.report else None,
            "problems": row.problems,
        }
        for row in found.rows
    ]
    return {
        "cluster": cluster.name,
        "address": found.address,
        "ok": found.is_well,
        "problems": found.problems,
        "nodes": nodes,
    }


def _table(cluster: Cluster, found: Checked) -> None:
    out = console()
    nodes = f"{len(found.rows)} node{'' if len(found.rows) == 1 else 's'}"
    out.print(f"[bold]{escape(cluster.name)}[/] at {escape(found.address)}: {nodes} in Ray")
    heads = (
        "node",
        "pool",
        "accelerators",
        "driver",
        "free",
        "memory free",
        "home free",
        "tmp free",
        "clock",
        "versions",
    )
    table = Table(*heads, box=None, padding=(0, 2, 0, 0))
    for row in found.rows:
        table.add_row(*_node(row))
    out.print(table)
    for row in found.rows:
        if row.seen.report and row.seen.report.environments:
            out.print(f"{escape(row.seen.address)} has {escape(', '.join(row.seen.report.environments))}")
    for text in [*found.problems, *(f"{row.seen.address}: {text}" for row in found.rows for text in row.problems)]:
        out.print(f"[red]problem[/] {escape(text)}")
    if found.is_well:
        out.print("[green]nothing is wrong[/]")


def _node(row: Row) -> list[str]:
    seen, report = row.seen, row.seen.report
    name = f"{seen.address}{' (head)' if seen.is_head else ''}"
    pool = row.pool.name if row.pool else _NONE
    if report is None:
        return [name, pool, *[_NONE] * 8]
    kinds = Counter(one.kind for one in report.accelerators)
    free = [one.memory_free_bytes for one in report.accelerators if one.memory_free_bytes is not None]
    return [
        name,
        pool,
        ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none",
        ", ".join(sorted({one.driver for one in report.accelerators if one.driver})) or _NONE,
        _gigabytes(min(free, default=None)),
        f"{_gigabytes(report.memory_free_bytes)} of {_gigabytes(report.memory_bytes)}",
        _gigabytes(report.home_free_bytes),
        _gigabytes(report.tmp_free_bytes),
        f"{seen.skew_s * 1e3:+.0f} ms ± {seen.skew_error_s * 1e3:.0f}",
        ", ".join(f"{name} {version or _NONE}" for name, version in report.versions.items()),
    ]


def _gigabytes(amount: int | None) -> str:
    return _NONE if amount is None else f"{amount / 1e9:,.0f} GB"
