"""Which pool a node of Ray belongs to: its label first, else what it has, else nothing and the reason."""

import pytest

from orchestrator.clusters.cluster import NodePool
from orchestrator.clusters.match import match, same_kind, told_apart

H100 = NodePool(cpus=192, accelerator="H100", accelerators=8)
SPOT = NodePool(cpus=192, accelerator="H100", accelerators=8, spot=True, labels={"market": "spot"})
A100 = NodePool(cpus=96, accelerator="A100-80GB", accelerators=8)
MI300X = NodePool(cpus=192, accelerator="MI300X", accelerators=8)
CPU = NodePool(cpus=32)
POOLS = [H100, A100, MI300X, CPU]


def test_our_label_decides_whatever_else_the_node_tells() -> None:
    found = match([H100, SPOT], {"orch.pool": "h100x8-spot", "gpu.family": "mi300x"}, {"GPU": 4.0})
    assert found.pool == SPOT


def test_a_label_of_no_pool_is_no_match_and_names_the_pools() -> None:
    found = match([H100], {"orch.pool": "h200x8"}, {"GPU": 8.0})
    assert found.pool is None
    assert found.reason == "its label orch.pool=h200x8 names none of the pools h100x8 (8 H100)"


@pytest.mark.parametrize(
    ("labels", "resources", "pool"),
    [
        ({"gpu.family": "mi300x"}, {"GPU": 8.0}, MI300X),
        ({"ray.io/accelerator-type": "AMD-Instinct-MI300X-OAM"}, {"GPU": 8.0}, MI300X),
        ({"ray.io/accelerator-type": "AMD-Instinct-MI300X-HF"}, {"GPU": 8.0}, MI300X),
        ({}, {"GPU": 8.0, "accelerator_type:A100": 1.0}, A100),
        ({"ray.io/accelerator-type": "A100-80G"}, {"GPU": 8.0}, A100),
        ({}, {"GPU": 8.0, "accelerator_type:H100": 1.0}, H100),
        ({}, {"CPU": 4.0}, CPU),
    ],
)
def test_without_it_the_kind_and_the_number_decide(
    labels: dict[str, str], resources: dict[str, float], pool: NodePool
) -> None:
    assert match(POOLS, labels, resources).pool == pool


def test_the_number_alone_decides_where_only_one_pool_has_it() -> None:
    assert match([H100, CPU], {}, {"GPU": 8.0, "CPU": 100.0}).pool == H100


def test_of_pools_that_differ_in_a_label_the_one_whose_label_the_node_carries_is_meant() -> None:
    assert match([H100, SPOT], {"market": "spot"}, {"GPU": 8.0}).pool == SPOT
    assert match([H100.model_copy(update={"labels": {"market": "on-demand"}}), SPOT], {}, {"GPU": 8.0}).pool is None


def test_two_pools_that_fit_are_no_match_and_the_reason_says_what_can_tell() -> None:
    found = match(POOLS, {}, {"GPU": 8.0, "CPU": 64.0})
    assert found.pool is None
    assert found.reason == (
        "it has 8 accelerators of a kind that it does not tell and 64 CPUs, as in the pools h100x8 (8 H100),"
        " a100-80gbx8 (8 A100-80GB), mi300xx8 (8 MI300X): only a label orch.pool=NAME can tell"
    )


def test_a_node_that_no_pool_has_is_no_match() -> None:
    found = match([H100], {"ray.io/accelerator-type": "H100"}, {"GPU": 4.0, "CPU": 96.0})
    assert found.reason == "it has 4 H100; the pools are h100x8 (8 H100)"
    assert match([H100], {}, {"CPU": 8.0}).reason == "it has no accelerator; the pools are h100x8 (8 H100)"


def test_memory_tells_kinds_apart_only_where_both_names_have_it() -> None:
    assert same_kind("A100", "A100-80GB")
    assert same_kind("NVIDIA A100-SXM4-80GB", "A100-80GB")
    assert not same_kind("A100-40G", "A100-80GB")
    assert not same_kind("MI300A", "MI300X")


def test_pools_are_told_apart_by_what_they_have_or_by_a_label_with_two_values() -> None:
    bigger = H100.model_copy(update={"cpus": 224})
    assert told_apart(H100, A100)
    assert told_apart(H100, bigger)
    assert not told_apart(H100, SPOT), "a node without the label could be of either"
    assert told_apart(H100.model_copy(update={"labels": {"market": "on-demand"}}), SPOT)
