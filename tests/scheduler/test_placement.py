"""Packing: whole nodes and whole islands stay free, scarce kinds too, shares fill broken GPUs."""

from dataclasses import replace

import numpy as np
import pytest
from states import nodes, run, running, started, state

from orchestrator.scheduler.fragmentation import Mix, fragmentation, growth
from orchestrator.scheduler.placement import choose_gpus
from orchestrator.scheduler.policy import decide
from orchestrator.scheduler.tables import Cluster
from orchestrator.scheduler.values import Demand, Node


def test_small_runs_share_a_node_so_that_a_large_one_still_fits():
    queued = [*(run(f"r{i}") for i in range(8)), run("large", 8, seconds=9 * 3600.0)]
    plan = started(decide(state(nodes(2), queued)))
    assert len({plan[f"r{i}"].placements[0].node for i in range(8)}) == 1
    assert "large" in plan


def test_a_run_goes_into_the_island_that_it_fills():
    (node,) = nodes(1)
    half = replace(node, island=4, free=(0, 0, 1000, 1000, 1000, 1000, 1000, 1000))
    assert choose_gpus(Cluster((half,)), Demand(2), 0) == [2, 3]
    assert choose_gpus(Cluster((half,)), Demand(4), 0) == [4, 5, 6, 7]


def test_shares_of_a_gpu_go_to_a_gpu_that_is_shared_already():
    entry = running(run("half", demand=Demand(1, 500)), ("H100-1", (3,)))
    plan = decide(state(nodes(2), [run("other", demand=Demand(1, 500))], [entry]))
    (place,) = started(plan)["other"].placements
    assert (place.node, place.gpus) == ("H100-1", (3,))


def test_a_run_that_accepts_all_kinds_keeps_off_the_one_that_others_need():
    cluster = nodes(1, kind="A100") + nodes(1, kind="H100")
    queued = [run("any", seconds=60.0), *(run(f"a{i}", 2, kinds=("A100",), seconds=9000.0) for i in range(4))]
    assert started(decide(state(cluster, queued)))["any"].placements[0].node == "H100-0"


def test_a_gang_lies_on_as_few_nodes_as_it_can():
    entry = running(run("one"), ("H100-0", (0,)))
    plan = started(decide(state(nodes(3), [run("gang", 4, 4)], [entry])))
    assert sorted({place.node for place in plan["gang"].placements}) == ["H100-1", "H100-2"]


def test_fragmentation_is_what_the_mix_cannot_use():
    cluster = Cluster((Node("n", "H100", (1000, 500, 200, 0)),))
    mix = Mix.of(cluster, [run("one"), run("half", demand=Demand(1, 500))], np.array([1, 1]))
    at = np.array([0])
    value = fragmentation(mix, cluster.free, cluster.cpus, cluster.memory, at)
    assert value == pytest.approx([0.5 * 700 + 0.5 * 200])  # whole: 500 + 200 are of no use; half: only the 200
    grown, gpu = growth(mix, cluster, Demand(1, 200), at)
    assert gpu == [2]  # the remainder that nobody can use is used up
    assert grown[0] < 0


def test_a_node_that_lacks_cores_is_lost_to_the_mix():
    cluster = Cluster((Node("n", "H100", (1000, 1000), cpus=1.0),))
    mix = Mix.of(cluster, [run("r", demand=Demand(1, cpus=4.0))], np.array([3]))
    assert fragmentation(mix, cluster.free, cluster.cpus, cluster.memory, np.array([0])) == pytest.approx([2000])
