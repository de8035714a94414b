"""Cluster files: what they say, and every problem at once."""

from pathlib import Path

import pytest

from orchestrator.clusters.cluster import Cluster, NodePool
from orchestrator.clusters.load import load_cluster
from orchestrator.errors import RecipeError
from orchestrator.units import Usd


def test_a_cluster_names_the_most_accelerators_that_one_node_has(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    nodes = "[{cpus: 8, accelerator: H100, accelerators: 4}, {cpus: 8, accelerator: H100, accelerators: 8}, {cpus: 2}]"
    file.write_text(f"name: lab\naddress: 10.0.0.1:6379\nnodes: {nodes}\n")
    assert load_cluster(file).accelerators() == {"H100": 8}


def test_every_problem_of_a_cluster_file_is_listed_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("name: lab\nadress: local\nnodes:\n  - {cpus: many, memory: 2 houses}\n")
    with pytest.raises(RecipeError) as caught:
        load_cluster(file)
    assert "cluster.yaml:2: unknown key 'adress'; did you mean 'address'?" in caught.value.message
    assert "cluster.yaml:4: nodes.0.cpus: input should be a valid integer" in caught.value.message
    assert "cluster.yaml:4: nodes.0.memory: '2 houses' is not bytes" in caught.value.message


def test_this_machine_is_a_cluster_of_one_node() -> None:
    found = load_cluster(None)
    assert found.address == "local"
    assert [pool.cpus > 0 for pool in found.nodes] == [True]


def test_accelerators_cost_their_share_of_the_node_and_an_unknown_price_stays_unknown(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    h100 = "{cpus: 8, accelerator: H100, accelerators: 8, usd_per_hour: $16, price_source: contract}"
    file.write_text(f"name: lab\naddress: 10.0.0.1:6379\nnodes: [{h100}, {{cpus: 4}}]\n")
    cluster = load_cluster(file)
    assert cluster.price("H100", 2) == (4.0, "contract")
    assert cluster.price(None, 0) == (16.0, "contract"), "without accelerators an engine has the whole node"
    assert cluster.price("MI300X", 1) == (None, None)
    assert Cluster(name="here", nodes=[NodePool(cpus=2)]).price(None, 0) == (None, None)
    assert Cluster(name="here", nodes=[NodePool(cpus=2, usd_per_hour=Usd(0.5))]).price(None, 0) == (0.5, "cluster here")


def test_a_price_is_that_of_a_pool_that_has_so_many_and_is_not_taken_away() -> None:
    spot = NodePool(cpus=8, accelerator="H100", accelerators=8, spot=True, usd_per_hour=Usd(8))
    small = NodePool(cpus=8, accelerator="H100", accelerators=1, usd_per_hour=Usd(3))
    large = NodePool(cpus=8, accelerator="H100", accelerators=8, usd_per_hour=Usd(16))
    cluster = Cluster(name="lab", nodes=[spot, small, large])
    assert cluster.price("H100", 1) == (3.0, "cluster lab")
    assert cluster.price("H100", 4) == (8.0, "cluster lab")


def test_a_pool_without_a_name_is_called_after_what_its_nodes_have() -> None:
    assert NodePool(cpus=2).name == "cpu"
    assert NodePool(cpus=2, accelerator="A100-80GB", accelerators=8, spot=True).name == "a100-80gbx8-spot"
    assert NodePool(cpus=2, accelerator="NVIDIA RTX 6000 (Ada)", accelerators=1).name == "nvidia-rtx-6000-adax1"
    assert NodePool(cpus=2, name="lab").name == "lab"


def test_a_cluster_that_an_older_version_has_stored_still_loads() -> None:
    stored = {"name": "lab", "address": "10.0.0.1:6379", "nodes": [{"count": 2, "cpus": 8, "memory": "1 TB"}]}
    found = Cluster.model_validate(stored | {"images": {}, "versions": {}})
    assert (found.quotas, found.storage, found.nodes[0].name) == ({}, None, "cpu")
    assert Cluster.model_validate_json(found.model_dump_json()) == found
