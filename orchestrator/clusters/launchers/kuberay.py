"""A RayCluster of KubeRay (1.6 or newer) on Kubernetes, queued by Kueue as a whole where a queue is named."""

import importlib.metadata
import re
from typing import Any

import yaml

from orchestrator import gpus
from orchestrator.clusters.cluster import Cluster, NodePool
from orchestrator.clusters.launchers import _ray
from orchestrator.clusters.launchers.base import Found
from orchestrator.config import Model

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
_ROCKSDB = "rocksdb"
_RAY_VERSION = "2.60.0"
_DNS_LABEL = r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?"


class Options(Model):
    """Of the `launcher:` section."""

    image: str | None = None
    """Container image of the head, and of pools that name none; Ray, orch and Python in it as they are here."""
    namespace: str = "default"
    """Of Kubernetes."""
    queue: str | None = None
    """LocalQueue of Kueue that admits the cluster, all of it at once."""
    claims: dict[str, str] = {}
    """Name of a PersistentVolumeClaim -> where every node mounts it; $ORCH_HOME has to be on one that all can write."""
    node_selectors: dict[str, dict[str, str]] = {}
    """Pool -> labels of the Kubernetes nodes that it runs on."""
    gcs: str | None = None
    """Where the head keeps its state, so that runs outlive its restart: `rocksdb`, on a volume that KubeRay makes (it
    needs one that knows `gcsFaultToleranceOptions.backend`), or redis://HOST:PORT."""
    head_cpus: int = 4
    """CPU cores of the head, which runs no work."""
    head_memory: str = "16Gi"
    """Memory of the head, as Kubernetes writes it."""


def problems(cluster: Cluster, options: Options) -> Found:
    """What the cluster lacks."""
    if options.gcs not in (None, _ROCKSDB) and not (options.gcs or "").startswith(_ray.REDIS):
        yield ("launcher", "gcs"), f"{options.gcs!r} is neither {_ROCKSDB} nor redis://HOST:PORT"
    if not re.fullmatch(_DNS_LABEL, cluster.name):
        yield (
            ("name",),
            f"{cluster.name!r} is no name in Kubernetes: lower-case letters, digits and `-`, a letter first",
        )
    if not options.image:
        yield ("launcher", "image"), "is missing: the head runs in a container"
    for index, pool in enumerate(cluster.nodes):
        if pool.memory is None:
            yield ("nodes", index, "memory"), "is missing: Kubernetes reserves memory for every node"
    for name in options.node_selectors:
        if cluster.pool(name) is None:
            yield ("launcher", "node_selectors", name), f"there is no pool {name!r}"


def files(cluster: Cluster, options: Options) -> dict[str, str]:
    """The manifest."""
    return {_file_name(cluster): yaml.safe_dump(_manifest(cluster, options), sort_keys=False, width=1000)}


def up_command(cluster: Cluster) -> list[str]:
    """In the folder of the manifest."""
    return ["kubectl", "apply", "-f", _file_name(cluster)]


def down_command(cluster: Cluster) -> list[str]:
    """Ends the cluster and its pods."""
    return ["kubectl", "delete", "--ignore-not-found", "-f", _file_name(cluster)]


def _file_name(cluster: Cluster) -> str:
    return f"{cluster.name}.raycluster.yaml"


def _manifest(cluster: Cluster, options: Options) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": cluster.name, "namespace": options.namespace}
    if options.queue:
        metadata["labels"] = {QUEUE_LABEL: options.queue}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": metadata,
        "spec": {
            "rayVersion": _ray_version(),
            "authOptions": {"mode": "token"},  # KubeRay makes the token, and gives it to every pod
            **(_kept(options.gcs) if options.gcs else {}),
            "headGroupSpec": _head(cluster, options),
            "workerGroupSpecs": [_workers(pool, options) for pool in cluster.nodes],
        },
    }


def _kept(gcs: str) -> dict[str, Any]:
    if gcs == _ROCKSDB:
        return {"gcsFaultToleranceOptions": {"backend": "rocksdb", "storage": {"size": "4Gi"}}}
    return {"gcsFaultToleranceOptions": {"redisAddress": gcs.removeprefix(_ray.REDIS)}}


def _head(cluster: Cluster, options: Options) -> dict[str, Any]:
    resources = {"cpu": options.head_cpus, "memory": options.head_memory}
    variables = _ray.HEALTH | _ray.RECONNECT
    container = _container("ray-head", options.image or "", resources, variables, options)
    ports = [("gcs-server", int(_ray.port(cluster))), ("dashboard", 8265), ("client", 10001)]
    container["ports"] = [{"name": name, "containerPort": number} for name, number in ports]
    parameters = {"num-cpus": "0", "port": _ray.port(cluster), "dashboard-host": "0.0.0.0"}
    return {"rayStartParams": parameters, "template": _template(container, {}, options)}


def _workers(pool: NodePool, options: Options) -> dict[str, Any]:
    resources: dict[str, Any] = {"cpu": pool.cpus, "memory": str(int(pool.memory or 0))}
    if pool.accelerator:
        vendor = "amd.com" if gpus.is_amd(pool.accelerator) else "nvidia.com"
        resources[f"{vendor}/gpu"] = pool.accelerators
    container = _container("ray-worker", pool.image or options.image or "", resources, _ray.RECONNECT, options)
    return {
        "groupName": pool.name,
        "replicas": pool.count,
        "minReplicas": pool.count,
        "maxReplicas": pool.count,
        "labels": _ray.labels(pool),
        "rayStartParams": {},
        "template": _template(container, options.node_selectors.get(pool.name, {}), options),
    }


def _container(
    name: str, image: str, resources: dict[str, Any], variables: dict[str, str], options: Options
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": name,
        "image": image,
        "env": [{"name": variable, "value": value} for variable, value in variables.items()],
        "resources": {"limits": resources, "requests": dict(resources)},  # two of them: YAML would write an alias
    }
    if options.claims:
        found["volumeMounts"] = [{"name": claim, "mountPath": path} for claim, path in options.claims.items()]
    return found


def _template(container: dict[str, Any], selector: dict[str, str], options: Options) -> dict[str, Any]:
    spec: dict[str, Any] = {"containers": [container]}
    if selector:
        spec["nodeSelector"] = selector
    if options.claims:
        spec["volumes"] = [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in options.claims]
    return {"spec": spec}


def _ray_version() -> str:
    """KubeRay wants it for the token; that of this installation where Ray is a part of it."""
    try:
        return importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        return _RAY_VERSION
