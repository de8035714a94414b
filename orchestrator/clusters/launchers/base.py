"""What a launcher is: one file of this folder, whose name is the `name` of a cluster file's `launcher:` section."""

from collections.abc import Iterator
from typing import Any, Protocol

from orchestrator.clusters.cluster import Cluster
from orchestrator.config import Model
from orchestrator.documents import Key

Found = Iterator[tuple[Key, str]]
"""(where, what) of each problem."""


class Launcher(Protocol):
    """Pure functions of a cluster; a module is one. What it writes sets `orch.pool` on every node."""

    Options: type[Model]
    """The rest of the `launcher:` section."""

    def problems(self, cluster: Cluster, options: Any) -> Found:
        """What the cluster lacks for it."""
        ...

    def files(self, cluster: Cluster, options: Any) -> dict[str, str]:
        """Name -> text of what is reviewed and then applied."""
        ...

    def up_command(self, cluster: Cluster) -> list[str]:
        """What applies them, in their folder."""
        ...

    def down_command(self, cluster: Cluster) -> list[str]:
        """What undoes that."""
        ...
