"""Machines of Google Cloud, by `ray up`; google-api-python-client and credentials have to be where it runs."""

from typing import Any

from orchestrator.clusters.cluster import Cluster, NodePool
from orchestrator.clusters.launchers import _ray_up
from orchestrator.clusters.launchers._ray_up import down_command as down_command
from orchestrator.clusters.launchers._ray_up import up_command as up_command
from orchestrator.clusters.launchers.base import Found


class Options(_ray_up.Options):
    """Of the `launcher:` section."""

    project: str
    """Its id."""
    region: str
    """Such as us-central1."""
    availability_zone: str
    """Such as us-central1-a."""
    head_instance: str = "n2-standard-8"
    """Machine type of the head, which needs no accelerator."""
    source_image: str = "projects/deeplearning-platform-release/global/images/family/common-cu124"
    """Machine image of all nodes."""
    disk_gb: int = 512
    """Boot disk of every node."""


def problems(cluster: Cluster, options: Options) -> Found:
    """What the cluster lacks."""
    yield from _ray_up.problems(cluster, options)
    yield from _ray_up.instance_problems(cluster)


def files(cluster: Cluster, options: Options) -> dict[str, str]:
    """The configuration of `ray up`."""
    provider = {
        "type": "gcp",
        "region": options.region,
        "availability_zone": options.availability_zone,
        "project_id": options.project,
    }
    pools = {pool.name: _node(pool.instance or "", options, _scheduling(pool)) for pool in cluster.nodes}
    rest = {
        **_ray_up.node_types(cluster, _node(options.head_instance, options, {}), pools),
        "head_start_ray_commands": _ray_up.head_start(cluster, options),
        "worker_start_ray_commands": _ray_up.worker_start(cluster),
    }
    return {_ray_up.file_name(cluster): _ray_up.config(cluster, options, provider, rest)}


def _node(instance: str, options: Options, scheduling: dict[str, Any]) -> dict[str, Any]:
    disk = {
        "boot": True,
        "autoDelete": True,
        "type": "PERSISTENT",
        "initializeParams": {"diskSizeGb": options.disk_gb, "sourceImage": options.source_image},
    }
    return {"machineType": instance, "disks": [disk], **({"scheduling": scheduling} if scheduling else {})}


def _scheduling(pool: NodePool) -> dict[str, Any]:
    """Machines with accelerators cannot be moved while they run."""
    found: dict[str, Any] = {"onHostMaintenance": "TERMINATE"} if pool.accelerators else {}
    if pool.spot:
        found |= {"provisioningModel": "SPOT", "onHostMaintenance": "TERMINATE", "automaticRestart": False}
    return found
