"""Machines of AWS, by `ray up`; boto3 and credentials have to be where it runs."""

from typing import Any

from orchestrator.clusters.cluster import Cluster, NodePool
from orchestrator.clusters.launchers import _ray_up
from orchestrator.clusters.launchers._ray_up import down_command as down_command
from orchestrator.clusters.launchers._ray_up import up_command as up_command
from orchestrator.clusters.launchers.base import Found


class Options(_ray_up.Options):
    """Of the `launcher:` section."""

    region: str
    """Such as us-east-1."""
    availability_zone: str | None = None
    """One, or several with commas, tried in this order; absent: Ray's choice among those of the region."""
    head_instance: str = "m5.2xlarge"
    """Machine type of the head, which needs no accelerator."""
    ami: str | None = None
    """Machine image of all nodes, such as a Deep Learning AMI; absent: the one that Ray knows for the region."""
    disk_gb: int = 512
    """Root disk of every node."""


def problems(cluster: Cluster, options: Options) -> Found:
    """What the cluster lacks."""
    yield from _ray_up.problems(cluster, options)
    yield from _ray_up.instance_problems(cluster)


def files(cluster: Cluster, options: Options) -> dict[str, str]:
    """The configuration of `ray up`."""
    provider: dict[str, Any] = {"type": "aws", "region": options.region, "cache_stopped_nodes": False}
    if options.availability_zone:
        provider["availability_zone"] = options.availability_zone
    pools = {pool.name: _node(pool.instance or "", options) | _spot(pool) for pool in cluster.nodes}
    rest = {
        **_ray_up.node_types(cluster, _node(options.head_instance, options), pools),
        "head_start_ray_commands": _ray_up.head_start(cluster, options),
        "worker_start_ray_commands": _ray_up.worker_start(cluster),
    }
    return {_ray_up.file_name(cluster): _ray_up.config(cluster, options, provider, rest)}


def _node(instance: str, options: Options) -> dict[str, Any]:
    disk = {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": options.disk_gb, "VolumeType": "gp3"}}
    image = {"ImageId": options.ami} if options.ami else {}
    return {"InstanceType": instance, **image, "BlockDeviceMappings": [disk]}


def _spot(pool: NodePool) -> dict[str, Any]:
    return {"InstanceMarketOptions": {"MarketType": "spot"}} if pool.spot else {}
