"""A cluster that stands in for Ray: it remembers what was started on it, and loses what a test takes away."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.errors import InfrastructureError
from orchestrator.ray.remote import Seen, SeenBundle, SeenGroup, SeenNode


class FakeCluster:
    """Nodes by name -> GPUs; every node has 8 CPUs."""

    def __init__(self, **nodes: int) -> None:
        self.nodes = dict(nodes)
        self.labels: dict[str, dict[str, str]] = {}
        self.leaving: dict[str, float] = {}
        self.started: dict[str, tuple[list[str], list[Any]]] = {}
        self.ended: list[str] = []
        self.gateways: list[str] = []
        self.foreign: list[SeenGroup] = []
        self.blind: set[str] = set()
        self.away = False
        self.full = False

    def observe(self) -> Seen:
        """What it has and runs."""
        if self.away:
            raise InfrastructureError("cannot reach Ray at here: no answer")
        nodes = [
            SeenNode(id=name, address=name, resources={"CPU": 8.0, **({"GPU": float(gpus)} if gpus else {})},
                     labels=self.labels.get(name, {}), leaves_at=self.leaving.get(name))
            for name, gpus in self.nodes.items()
        ]  # fmt: skip
        groups = [
            SeenGroup(name=name, state="CREATED", bundles=[SeenBundle(node=node, resources={}) for node in where])
            for name, (where, _) in self.started.items()
        ]
        actors = [*self.started, *self.gateways]
        return Seen(nodes=nodes, groups=groups, foreign=self.foreign, actors=actors)

    def read(self, path: str, nodes: list[str]) -> dict[str, str | None]:
        """What the nodes see of the store's folder."""
        return {node: None if node in self.blind else Path(path).read_text() for node in nodes}

    def start(self, name: str, target: str, args: Sequence[Any], nodes: list[str],
              bundle: dict[str, float]) -> str | None:  # fmt: skip
        if self.full:
            return "Ray found no room"
        self.started[name] = nodes, list(args)
        return None

    def start_anywhere(self, name: str, target: str, args: Sequence[Any]) -> None:
        self.gateways.append(name)

    def end(self, name: str) -> None:
        self.started.pop(name, None)
        self.ended.append(name)

    def close(self) -> None:
        self.away = True
