"""Configurations of `ray up`: what Ray itself accepts, and what the lines of the shell do."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.clusters.cluster import Cluster
from tests.clusters.launchers.clusters import POOLS, cluster, text, wrong

CLOUDS = ["aws", "gcp"]


def _prepared(found: Cluster) -> dict[str, Any]:
    """As Ray reads it, with its own defaults, held to its own schema."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config: dict[str, Any] = prepare_config(yaml.safe_load(text(found)))
    validate_config(config)
    return config


@pytest.mark.parametrize("name", [*CLOUDS, "on_premises"])
def test_ray_accepts_it(name: str) -> None:
    config = _prepared(cluster(name, image="registry/orch:1" if name in CLOUDS else None, gcs="/var/lib/gcs"))
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    assert "RAY_gcs_storage=rocksdb" in config["head_start_ray_commands"][-1]
    assert "RAY_gcs_storage_path=/var/lib/gcs" in config["head_start_ray_commands"][-1]
    assert "RAY_gcs_storage" not in config["worker_start_ray_commands"][-1]


@pytest.mark.parametrize("name", CLOUDS)
def test_every_pool_is_a_type_of_nodes_at_its_full_number(name: str) -> None:
    config = _prepared(cluster(name))
    types = config["available_node_types"]
    assert types.keys() == {"head", "h100x8", "mi300xx8-spot"}
    assert config["max_workers"] == 3
    assert (types["h100x8"]["min_workers"], types["h100x8"]["max_workers"]) == (2, 2)
    assert types["h100x8"]["resources"] == {"CPU": 192, "GPU": 8}
    assert types["mi300xx8-spot"]["labels"] == {"orch.pool": "mi300xx8-spot", "rack": "r2"}
    assert types["head"]["resources"]["CPU"] == 0


def test_nothing_is_installed_that_the_file_does_not_name() -> None:
    config = _prepared(cluster("aws", setup=["pip install /wheels/*"]))
    assert config["setup_commands"][0] == "pip install /wheels/*"
    assert not any("ray-wheels" in command for command in config["setup_commands"]), "Ray's default: the nightly build"


def test_spot_pools_ask_their_cloud_for_spot_machines() -> None:
    aws = _prepared(cluster("aws"))["available_node_types"]
    assert aws["mi300xx8-spot"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in aws["h100x8"]["node_config"]
    gcp = _prepared(cluster("gcp"))["available_node_types"]
    assert gcp["mi300xx8-spot"]["node_config"]["scheduling"]["provisioningModel"] == "SPOT"
    assert gcp["h100x8"]["node_config"]["scheduling"] == {"onHostMaintenance": "TERMINATE"}


def test_containers_with_amd_accelerators_get_their_devices() -> None:
    types = _prepared(cluster("aws", image="registry/orch:1"))["available_node_types"]
    assert "--device=/dev/kfd" in types["mi300xx8-spot"]["docker"]["worker_run_options"]
    assert "docker" not in types["h100x8"]


def test_a_machine_of_ones_own_finds_the_labels_of_its_pool_by_its_address(tmp_path: Path) -> None:
    config = yaml.safe_load(text(cluster("on_premises")))
    assert config["provider"] == {"type": "local", "head_ip": "10.0.0.1", "worker_ips": ["10.0.0.2", "10.0.0.3"]}
    assert "--labels=orch.pool=h100x8" in config["head_start_ray_commands"][-1]
    start = config["worker_start_ray_commands"][-1]
    assert _said(tmp_path, start, "10.0.0.3 172.17.0.1") == (
        "start --address=10.0.0.1:6379 --labels=orch.pool=mi300xx8-spot,rack=r2"
    )
    assert _said(tmp_path, start, "10.0.0.2") == "start --address=10.0.0.1:6379 --labels=orch.pool=h100x8"
    assert _said(tmp_path, start, "10.0.0.9") == "10.0.0.9 is in no pool of the cluster file"


def _said(folder: Path, line: str, addresses: str) -> str:
    """What `ray` is called with on a machine of these addresses, or what is said instead."""
    for name, body in (("ray", 'echo "$@"'), ("hostname", f"echo {addresses}")):
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "RAY_HEAD_IP": "10.0.0.1"}
    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True)
    return (done.stdout or done.stderr).strip().splitlines()[-1]


def test_a_head_of_its_own_hands_out_nothing() -> None:
    config = yaml.safe_load(text(cluster("on_premises", head="10.0.0.9")))
    assert config["provider"]["worker_ips"] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert config["head_start_ray_commands"][-1].endswith("--num-cpus=0")


def test_what_a_cloud_or_ones_own_machines_lack_is_told() -> None:
    bare = [pool.model_copy(update={"instance": None, "hosts": []}) for pool in POOLS]
    assert wrong(cluster("aws", bare)) == [
        "nodes.0.instance: is missing: the machine type of h100x8 in this cloud",
        "nodes.1.instance: is missing: the machine type of mi300xx8-spot in this cloud",
    ]
    assert (
        wrong(cluster("on_premises", bare))[0] == "nodes.0.hosts: is missing: the addresses of the machines of h100x8"
    )
    twice = [POOLS[0], POOLS[1].model_copy(update={"hosts": ["10.0.0.1"]})]
    assert wrong(cluster("on_premises", twice)) == [
        "nodes.1.hosts: 10.0.0.1 is listed twice; one machine runs one node"
    ]
    assert wrong(cluster("on_premises", image="registry/orch:1")) == [
        "launcher.image: AMD and NVIDIA machines need different options of docker; leave the image out"
    ]


def test_containers_of_a_pool_need_one_for_the_head() -> None:
    pools = [POOLS[0].model_copy(update={"image": "registry/cuda:1"})]
    assert wrong(cluster("aws", pools)) == [
        "nodes.0.image: needs `launcher.image` too: with containers the head runs in one as well"
    ]
    _prepared(cluster("aws", pools, image="registry/orch:1"))
