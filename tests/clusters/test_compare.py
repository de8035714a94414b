"""A cluster's file against what its nodes answered."""

from typing import Any

import pytest

from orchestrator.clusters.cluster import Cluster, NodePool
from orchestrator.clusters.compare import Seen, compare
from orchestrator.clusters.probe import Accelerator, NodeReport
from orchestrator.units import Bytes

HERE: dict[str, str | None] = {"python": "3.11", "ray": "2.60.0", "orch": "0.1.0"}
LAB = Cluster(
    name="lab",
    address="10.0.0.1:6379",
    nodes=[NodePool(count=2, cpus=96, memory=Bytes.parse("1TB"), accelerator="H100", accelerators=8)],
)
GPU = Accelerator(kind="H100", memory_bytes=85_000_000_000, memory_free_bytes=84_000_000_000, driver="570.86.15")


def _report(**changed: Any) -> NodeReport:
    well = NodeReport(
        cpus=96,
        memory_bytes=990_000_000_000,
        memory_free_bytes=900_000_000_000,
        accelerators=[GPU] * 8,
        home_free_bytes=500_000_000_000,
        tmp_free_bytes=100_000_000_000,
        environments=["vllm 0.32.0 (cuda)"],
        versions=HERE,
        sees_home=True,
        storage_problem=None,
    )
    return well.model_copy(update=changed)


def _node(number: int = 1, gpus: float = 8, labels: dict[str, str] | None = None, **changed: Any) -> Seen:
    labels = {"orch.pool": "h100x8"} if labels is None else labels
    return Seen(f"id{number}", f"10.0.0.{number}", labels, {"GPU": gpus, "CPU": 96.0}, _report(**changed))


def _problems(*nodes: Seen, cluster: Cluster = LAB) -> list[str]:
    rows, problems = compare(cluster, nodes, HERE)
    return [*problems, *(text for row in rows for text in row.problems)]


def test_nodes_as_the_file_says_have_no_problem() -> None:
    assert _problems(_node(1), _node(2)) == []


def test_a_missing_node_and_one_too_many_are_told() -> None:
    assert _problems(_node(1)) == ["pool h100x8: 1 of 2 nodes are in Ray, 1 missing"]
    assert _problems(_node(1), _node(2), _node(3)) == [
        "pool h100x8: 3 of 2 nodes are in Ray, 1 more than the file says"
    ]


def test_a_head_without_accelerators_needs_no_pool() -> None:
    head = Seen("id0", "10.0.0.9", {}, {"CPU": 8.0, "node:__internal_head__": 1.0}, _report(accelerators=[]))
    assert _problems(_node(1), _node(2), head) == []


def test_a_node_of_no_pool_says_why() -> None:
    found = _problems(_node(1), _node(2), _node(3, 4, {}, accelerators=[GPU] * 4))
    assert found[0].startswith("it is of no pool: it has 4 accelerators of a kind that it does not tell")


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        (
            _node(2, accelerators=[GPU] * 7),
            "Ray hands out 8 accelerators, the node's tools find 7",
        ),
        (
            _node(2, accelerators=[GPU.model_copy(update={"kind": "A100-80GB"})] * 8),
            "its accelerators are A100-80GB, pool h100x8 has H100",
        ),
        (
            _node(2, accelerators=[*[GPU] * 7, GPU.model_copy(update={"driver": "550.1"})]),
            "its accelerators have different drivers: 550.1, 570.86.15",
        ),
        (_node(2, cpus=48), "it has 48 CPU cores, pool h100x8 has 96"),
        (_node(2, memory_bytes=512_000_000_000), "it has 512 GB of memory, pool h100x8 has 1 TB"),
        (
            _node(2, sees_home=False),
            "it does not see $ORCH_HOME of this command: that folder has to be one that all nodes share",
        ),
        (_node(2, home_free_bytes=1_000_000_000), "$ORCH_HOME has 1.0 GB left, 5 are needed"),
        (_node(2, tmp_free_bytes=500_000_000), "its temporary folder has 0.5 GB left"),
        (_node(2, storage_problem="cannot write to the storage s3://x"), "cannot write to the storage s3://x"),
        (_node(2, versions=HERE | {"ray": "2.59.0"}), "ray is 2.59.0 there, 2.60.0 here"),
        (_node(2, versions=HERE | {"orch": None}), "orch is not installed there, 0.1.0 here"),
    ],
)
def test_what_is_other_than_the_file_says_is_told(node: Seen, problem: str) -> None:
    assert _problems(_node(1), node) == [problem]


def test_a_number_that_ray_hands_out_and_the_file_does_not_know_is_told_beside_the_pool_of_the_label() -> None:
    assert _problems(_node(1), _node(2, 4, accelerators=[GPU] * 4)) == [
        "Ray hands out 4 accelerators, pool h100x8 has 8"
    ]


def test_a_clock_counts_as_wrong_only_beyond_what_the_round_trip_explains() -> None:
    def off(skew: float, error: float) -> Seen:
        return Seen("id2", "10.0.0.2", {"orch.pool": "h100x8"}, {"GPU": 8.0}, _report(), "", skew, error)

    assert _problems(_node(1), off(-30.0, 0.01)) == ["its clock is 30.0 s behind: is NTP running?"]
    assert _problems(_node(1), off(3.0, 5.0)) == []


def test_a_node_that_does_not_answer_has_its_error_as_its_problem() -> None:
    silent = Seen("id2", "10.0.0.2", {"orch.pool": "h100x8"}, {"GPU": 8.0}, None, "it does not answer")
    assert _problems(_node(1), silent) == ["it does not answer"]
