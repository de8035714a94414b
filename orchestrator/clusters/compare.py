"""A cluster's file against what its nodes answered (pure): what is missing, and what is other than it says."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.clusters.cluster import Cluster, NodePool
from orchestrator.clusters.match import match, same_kind
from orchestrator.clusters.probe import NodeReport

LEAST_HOME_BYTES = 5_000_000_000
LEAST_TMP_BYTES = 1_000_000_000
"""Free space under which a stage, or Ray's spilling, is expected to fail."""
MOST_SKEW_S = 2.0
"""Leases are judged by the store's clock; events of nodes are read side by side."""
_MEMORY_TOLERANCE = 0.1
"""A kernel keeps some for itself, and 2 TB of modules are not 2e12 bytes."""


@dataclass(frozen=True)
class Seen:
    """A node of Ray."""

    id: str
    address: str
    labels: dict[str, str] = field(default_factory=dict)
    resources: dict[str, float] = field(default_factory=dict)
    report: NodeReport | None = None
    """None: it did not answer."""
    error: str = ""
    """Why."""
    skew_s: float = 0.0
    """Its clock less the caller's, give or take `skew_error_s`."""
    skew_error_s: float = 0.0

    @property
    def is_head(self) -> bool:
        """Whether the Ray head is on it."""
        return "node:__internal_head__" in self.resources


@dataclass(frozen=True)
class Row:
    """A node and its pool."""

    seen: Seen
    pool: NodePool | None
    problems: list[str]


def compare(cluster: Cluster, nodes: Sequence[Seen], here: dict[str, str | None]) -> tuple[list[Row], list[str]]:
    """(every node with its problems, problems of the cluster as a whole); `here`: the caller's versions."""
    rows = [_row(cluster, seen, here) for seen in nodes]
    return rows, [text for pool in cluster.nodes if (text := _count(pool, rows))]


def _count(pool: NodePool, rows: Sequence[Row]) -> str | None:
    found = sum(row.pool is not None and row.pool.name == pool.name for row in rows)
    if found == pool.count:
        return None
    missing = f"{pool.count - found} missing" if found < pool.count else f"{found - pool.count} more than the file says"
    return f"pool {pool.name}: {found} of {pool.count} nodes are in Ray, {missing}"


def _row(cluster: Cluster, seen: Seen, here: dict[str, str | None]) -> Row:
    found = match(cluster.nodes, seen.labels, seen.resources)
    problems = []
    if found.pool is None and not _only_head(seen):
        problems.append(f"it is of no pool: {found.reason}")
    if seen.report is None:
        problems.append(seen.error)
    else:
        problems += [*_hardware(found.pool, seen, seen.report), *_site(cluster, seen, seen.report, here)]
    return Row(seen, found.pool, problems)


def _only_head(seen: Seen) -> bool:
    """A head without accelerators belongs to no pool, and need not."""
    return seen.is_head and not seen.resources.get("GPU")


def _hardware(pool: NodePool | None, seen: Seen, report: NodeReport) -> list[str]:
    declared, found = seen.resources.get("GPU", 0), len(report.accelerators)
    problems = [] if declared == found else [f"Ray hands out {declared:g} accelerators, the node's tools find {found}"]
    if pool is None:
        return problems
    if declared != pool.accelerators:
        problems.append(f"Ray hands out {declared:g} accelerators, pool {pool.name} has {pool.accelerators}")
    others = sorted({one.kind for one in report.accelerators if not same_kind(one.kind, pool.accelerator or "")})
    if others:
        problems.append(
            f"its accelerators are {' and '.join(others)}, pool {pool.name} has {pool.accelerator or 'none'}"
        )
    drivers = sorted({one.driver for one in report.accelerators if one.driver})
    if len(drivers) > 1:
        problems.append(f"its accelerators have different drivers: {', '.join(drivers)}")
    if report.cpus < pool.cpus:
        problems.append(f"it has {report.cpus} CPU cores, pool {pool.name} has {pool.cpus}")
    if pool.memory and report.memory_bytes and report.memory_bytes < (1 - _MEMORY_TOLERANCE) * pool.memory:
        problems.append(f"it has {report.memory_bytes / 1e9:.0f} GB of memory, pool {pool.name} has {pool.memory}")
    return problems


def _site(cluster: Cluster, seen: Seen, report: NodeReport, here: dict[str, str | None]) -> list[str]:
    problems = []
    if not report.sees_home:
        problems.append("it does not see $ORCH_HOME of this command: that folder has to be one that all nodes share")
    if report.home_free_bytes is not None and report.home_free_bytes < LEAST_HOME_BYTES:
        problems.append(
            f"$ORCH_HOME has {report.home_free_bytes / 1e9:.1f} GB left, {LEAST_HOME_BYTES / 1e9:g} are needed"
        )
    if report.tmp_free_bytes < LEAST_TMP_BYTES:
        problems.append(f"its temporary folder has {report.tmp_free_bytes / 1e9:.1f} GB left")
    if report.storage_problem:
        problems.append(report.storage_problem)
    if abs(seen.skew_s) > MOST_SKEW_S + seen.skew_error_s:
        way = "ahead" if seen.skew_s > 0 else "behind"
        problems.append(f"its clock is {abs(seen.skew_s):.1f} s {way}: is NTP running?")
    for name, version in report.versions.items():
        if version != here.get(name):
            problems.append(f"{name} is {version or 'not installed'} there, {here.get(name) or 'not installed'} here")
    return problems
