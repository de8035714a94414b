"""Checks a cluster: connects to its Ray, asks every node, and compares the answers with the cluster's file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.clusters import compare, probe, storage
from orchestrator.clusters.cluster import Cluster
from orchestrator.clusters.compare import Row
from orchestrator.clusters.load import LOCAL
from orchestrator.errors import InfrastructureError
from orchestrator.ray import connect
from orchestrator.ray.connect import address_of_head


@dataclass(frozen=True)
class Checked:
    """What was found."""

    address: str
    rows: list[Row]
    problems: list[str]
    """Of the cluster as a whole; those of one node are in its row."""

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems and not any(row.problems for row in self.rows)


def check(cluster: Cluster, home: Path) -> Checked:
    """Raises InfrastructureError when Ray does not answer, InputError when the storage cannot be used from here."""
    home.mkdir(parents=True, exist_ok=True)
    if cluster.storage:
        storage.check_writable(cluster.storage)
    with _address(cluster, home) as address, connect.connected(address, home), _marks(cluster, home) as asked:
        from orchestrator.ray import probing  # imports Ray, which reads its token when it is imported

        nodes = probing.ask_each(asked)
    rows, problems = compare.compare(cluster, nodes, probe.versions())
    return Checked(address, rows, problems)


def reachable(cluster: Cluster, home: Path) -> bool:
    """Whether something listens where its Ray should be; what is not started is not."""
    if cluster.address == LOCAL:
        return address_of_head(home) is not None
    return connect.listens(cluster.address)


def start_local(home: Path) -> str:
    """Address of this machine's Ray, which runs after this."""
    home.mkdir(parents=True, exist_ok=True)
    return connect.start_head(home, num_cpus=os.cpu_count() or 1)


@contextmanager
def _address(cluster: Cluster, home: Path) -> Iterator[str]:
    """Of its Ray; a local one that does not run is started, and stopped again."""
    if cluster.address != LOCAL:
        if not connect.listens(cluster.address):
            raise InfrastructureError(
                f"cluster {cluster.name}: nothing listens at {cluster.address}",
                next_step=f"`orch clusters up {cluster.name}`, or `ray start --head` there; is the address right?",
            )
        yield cluster.address
        return
    running = address_of_head(home)
    try:
        yield running or start_local(home)
    finally:
        if running is None:
            connect.stop_head(home)


@contextmanager
def _marks(cluster: Cluster, home: Path) -> Iterator[probe.Asked]:
    """Files that tell whether a node sees the same folder and the same storage."""
    of_home = storage.leave_mark(str(home))
    of_storage = storage.leave_mark(cluster.storage) if cluster.storage else None
    try:
        yield probe.Asked(home=str(home), home_mark=of_home, storage=cluster.storage, storage_mark=of_storage)
    finally:
        storage.remove_mark(str(home), of_home)
        if cluster.storage and of_storage:
            storage.remove_mark(cluster.storage, of_storage)
