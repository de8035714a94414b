"""A real cluster of H100, A100 and MI300X nodes, whose accelerators are declared: all lands where it was told."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.clusters.cluster import Cluster, NodePool
from orchestrator.clusters.match import match
from orchestrator.errors import InfrastructureError
from orchestrator.ray.remote import Remote, Seen
from tests.ray.nodes import Nodes, nodes

pytestmark = pytest.mark.slow
POOLS = [
    NodePool(cpus=4, accelerator="H100", accelerators=8),
    NodePool(cpus=4, accelerator="A100-80GB", accelerators=8),
    NodePool(cpus=4, accelerator="MI300X", accelerators=4),
]
CLUSTER = Cluster(name="mixed", nodes=POOLS)


@pytest.fixture(scope="module")
def ray_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with nodes(tmp_path_factory.mktemp("ray")) as made:
        made.head()
        for pool in POOLS:
            made.node(pool.name, cpus=pool.cpus, gpus=pool.accelerators, labels={"orch.pool": pool.name})
        yield made


@pytest.fixture(scope="module")
def connection(ray_nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ray_nodes.environment.items():
            patch.setenv(name, value)
        made = Remote(ray_nodes.address, tmp_path_factory.mktemp("home"), "orch-one")
        yield made
        made.close()


@pytest.fixture
def remote(connection: Remote) -> Iterator[Remote]:
    yield connection
    for name in connection.observe().actors:
        connection.end(name)
    until(lambda: not connection.observe().groups)


def until(happened: Callable[[], Any]) -> Any:
    """Wait for something that another process does."""
    deadline = time.monotonic() + 90
    while not (found := happened()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)
    return found


def node_of(seen: Seen, kind: str) -> str:
    """The node that belongs to the pool with this kind."""
    pools = {node.id: match(CLUSTER.nodes, node.labels, node.resources).pool for node in seen.nodes}
    return next(id for id, pool in pools.items() if pool and pool.accelerator == kind)


def test_driver_and_stage_land_on_the_node_that_was_chosen(remote: Remote, tmp_path: Path) -> None:
    seen = remote.observe()
    chosen = {kind: node_of(seen, kind) for kind in ("MI300X", "H100", "A100-80GB")}
    for kind, node in chosen.items():
        assert remote.start(kind, "tests.ray.drivers:note", [str(tmp_path), kind], [node], {"CPU": 1, "GPU": 1}) is None
    for kind, node in chosen.items():
        path = tmp_path / f"{kind}.json"
        until(path.exists)
        found = json.loads(path.read_text())
        assert (found["driver"], found["stage"]["node"]) == (node, node)
        assert found["stage"]["devices"] == "0"
    held = {group.name: [bundle.node for bundle in group.bundles] for group in remote.observe().groups}
    assert held == {kind: [node] for kind, node in chosen.items()}
    (tmp_path / "end").touch()
    until(lambda: not (now := remote.observe()).actors and not now.groups)


def test_a_gang_is_placed_as_a_whole_or_not_at_all(remote: Remote, tmp_path: Path) -> None:
    seen = remote.observe()
    h100, a100 = node_of(seen, "H100"), node_of(seen, "A100-80GB")
    args = [str(tmp_path), "gang"]
    assert remote.start("gang", "tests.ray.drivers:note", args, [h100, a100], {"CPU": 1, "GPU": 8}) is None
    why = remote.start("late", "tests.ray.drivers:note", args, [h100, node_of(seen, "MI300X")], {"CPU": 1, "GPU": 4})
    assert why is not None
    assert "Ray found no room on the chosen nodes" in why
    assert [group.name for group in remote.observe().groups] == ["gang"], "nothing is left of the other one"
    remote.end("gang")
    until(lambda: not remote.observe().groups)


def test_starting_twice_changes_nothing_and_another_store_sees_nothing(
    remote: Remote, ray_nodes: Nodes, tmp_path: Path
) -> None:
    node = node_of(remote.observe(), "H100")
    for _ in range(2):
        remote.start("one", "tests.ray.drivers:note", [str(tmp_path), "one"], [node], {"CPU": 1, "GPU": 1})
    assert remote.observe().actors == ["one"]
    other = Remote(ray_nodes.address, tmp_path, "orch-other")
    seen = other.observe()
    assert (seen.actors, seen.groups, len(seen.foreign)) == ([], [], 1)
    other.end("one")
    other.close()
    assert remote.observe().actors == ["one"]
    (tmp_path / "end").touch()


def test_each_node_is_asked_whether_it_sees_a_file(remote: Remote, tmp_path: Path) -> None:
    nodes = [node.id for node in remote.observe().nodes]
    (tmp_path / "marker").write_text("here")
    assert remote.read(str(tmp_path / "marker"), nodes) == dict.fromkeys(nodes, "here")
    assert remote.read(str(tmp_path / "nothing"), nodes) == dict.fromkeys(nodes)


def test_a_stage_is_asked_to_stop_and_its_answer_is_kept(remote: Remote, tmp_path: Path) -> None:
    node = node_of(remote.observe(), "H100")
    remote.start("long", "tests.ray.drivers:until_stopped", [str(tmp_path), "long"], [node], {"CPU": 1})
    until((tmp_path / "begun").exists)
    (tmp_path / "stop").touch()
    until((tmp_path / "long.json").exists)
    assert json.loads((tmp_path / "long.json").read_text()) == "stopped"


def test_a_cluster_that_does_not_answer_is_an_error_and_is_reached_again_later(
    remote: Remote, ray_nodes: Nodes, tmp_path: Path
) -> None:
    nowhere = Remote("127.0.0.1:9", tmp_path, "orch-x")
    with pytest.raises(InfrastructureError, match=r"cannot reach Ray at 127\.0\.0\.1:9"):
        nowhere.observe()
    agent = remote._process
    assert agent is not None
    agent.kill()
    with pytest.raises(InfrastructureError, match="its agent has ended"):
        remote.observe()
    assert remote.observe().nodes
