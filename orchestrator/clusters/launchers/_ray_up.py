"""The configuration of Ray's own cluster launcher, `ray up`, as far as all of its providers share it (pure)."""

from typing import Any

import yaml

from orchestrator.clusters.cluster import Cluster, NodePool
from orchestrator.clusters.launchers import _ray
from orchestrator.clusters.launchers.base import Found
from orchestrator.config import Model

HEAD = "head"
"""Type of the head's node: it starts no work of its own, so it is in no pool."""


class Options(Model):
    """What every provider of `ray up` needs to know."""

    ssh_user: str = "ubuntu"
    """User that nodes are entered as."""
    ssh_private_key: str | None = None
    """File of the key; without it a cloud's provider makes one."""
    setup: list[str] = []
    """Shell commands on every node before Ray starts, which install Ray and orch where no image has them."""
    image: str | None = None
    """Container image of the head, and of pools that name none; Ray, orch and Python in it as they are here."""
    gcs: str | None = None
    """Where the head keeps its state, so that runs outlive its restart: a path on its disk (RocksDB), or redis://HOST:PORT."""


def problems(cluster: Cluster, options: Options) -> Found:
    """Of what every provider needs."""
    wrong = _ray.gcs_problem(options.gcs)
    if wrong:
        yield ("launcher", "gcs"), wrong
    for index, pool in enumerate(cluster.nodes):
        if pool.image and not options.image:
            yield ("nodes", index, "image"), "needs `launcher.image` too: with containers the head runs in one as well"


def instance_problems(cluster: Cluster) -> Found:
    """Of a cloud: every pool names its machine type."""
    for index, pool in enumerate(cluster.nodes):
        if not pool.instance:
            yield ("nodes", index, "instance"), f"is missing: the machine type of {pool.name} in this cloud"
        if pool.name == HEAD:
            yield ("nodes", index, "name"), f"{HEAD!r} is the name of the head's own node; choose another"


def config(cluster: Cluster, options: Options, provider: dict[str, Any], rest: dict[str, Any]) -> str:
    """The YAML of `ray up`; `rest` is what one provider adds."""
    auth = {"ssh_user": options.ssh_user}
    if options.ssh_private_key:
        auth["ssh_private_key"] = options.ssh_private_key
    found = {
        "cluster_name": cluster.name,
        "max_workers": sum(pool.count for pool in cluster.nodes),
        "provider": provider,
        "auth": auth,
        "file_mounts": {_ray.TOKEN: _ray.TOKEN},
        "setup_commands": [*options.setup, _ray.INSTALLED],
        **(docker(options) if options.image else {}),
        **rest,
    }
    return yaml.safe_dump(found, sort_keys=False, width=1000)


def head_start(cluster: Cluster, options: Options, *more: str) -> list[str]:
    """`head_start_ray_commands`; the head reads the same configuration and starts the other nodes."""
    variables = _ray.head_variables(cluster, options.gcs)
    own = ("--autoscaling-config=~/ray_bootstrap_config.yaml", "--dashboard-host=127.0.0.1", "--disable-usage-stats")
    return [f"{_ray.PROGRAM} stop", _ray.line(variables, "--head", f"--port={_ray.port(cluster)}", *own, *more)]


def worker_start(cluster: Cluster, *more: str, before: str = "") -> list[str]:
    """`worker_start_ray_commands`."""
    address = f"--address=$RAY_HEAD_IP:{_ray.port(cluster)}"
    return [f"{_ray.PROGRAM} stop", before + _ray.line(_ray.worker_variables(), address, *more)]


def node_types(cluster: Cluster, head: dict[str, Any], pools: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """`available_node_types`: the head without resources, and every pool at its full number of nodes."""
    types: dict[str, Any] = {
        HEAD: {"min_workers": 0, "max_workers": 0, "resources": {"CPU": 0}, "node_config": head},
    }
    for pool in cluster.nodes:
        types[pool.name] = _node_type(pool, pools[pool.name])
    return {"available_node_types": types, "head_node_type": HEAD}


def _node_type(pool: NodePool, node_config: dict[str, Any]) -> dict[str, Any]:
    resources = {"CPU": pool.cpus, **({"GPU": pool.accelerators} if pool.accelerators else {})}
    docker = {"worker_image": pool.image} if pool.image else {}
    run_options = {"worker_run_options": _ray.devices(pool)} if _ray.devices(pool) else {}
    return {
        "min_workers": pool.count,
        "max_workers": pool.count,
        "resources": resources,
        "labels": _ray.labels(pool),
        **({"docker": {**docker, **run_options}} if docker or run_options else {}),
        "node_config": node_config,
    }


def docker(options: Options, *run_options: str) -> dict[str, Any]:
    """The `docker` section."""
    found = {"image": options.image, "container_name": "orch", "pull_before_run": True}
    return {"docker": {**found, **({"run_options": list(run_options)} if run_options else {})}}


def file_name(cluster: Cluster) -> str:
    """Of the configuration."""
    return f"{cluster.name}.ray.yaml"


def up_command(cluster: Cluster) -> list[str]:
    """In the folder of the configuration."""
    return [_ray.PROGRAM, "up", "--yes", "--disable-usage-stats", file_name(cluster)]


def down_command(cluster: Cluster) -> list[str]:
    """Ends every node that the configuration has started."""
    return [_ray.PROGRAM, "down", "--yes", file_name(cluster)]
