"""Machines of your own, by `ray up` over SSH; `hosts:` of every pool are their addresses."""

from orchestrator.clusters.cluster import Cluster
from orchestrator.clusters.launchers import _ray, _ray_up
from orchestrator.clusters.launchers._ray_up import down_command as down_command
from orchestrator.clusters.launchers._ray_up import up_command as up_command
from orchestrator.clusters.launchers.base import Found


class Options(_ray_up.Options):
    """Of the `launcher:` section."""

    head: str | None = None
    """Address of the machine that the head runs on; absent: the first host of the first pool."""


def problems(cluster: Cluster, options: Options) -> Found:
    """What the cluster lacks."""
    yield from _ray_up.problems(cluster, options)
    seen: set[str] = set()
    for index, pool in enumerate(cluster.nodes):
        if not pool.hosts:
            yield ("nodes", index, "hosts"), f"is missing: the addresses of the machines of {pool.name}"
        for host in pool.hosts:
            if host in seen:
                yield ("nodes", index, "hosts"), f"{host} is listed twice; one machine runs one node"
            seen.add(host)
        if pool.image and pool.image != options.image:
            yield ("nodes", index, "image"), "machines of your own run in one image, `launcher.image`"
    if options.image and len({bool(_ray.devices(pool)) for pool in cluster.nodes if pool.accelerator}) > 1:
        yield ("launcher", "image"), "AMD and NVIDIA machines need different options of docker; leave the image out"


def files(cluster: Cluster, options: Options) -> dict[str, str]:
    """The configuration of `ray up`. Its `local` provider has one type of nodes: each finds its own pool's labels."""
    head = options.head or cluster.nodes[0].hosts[0]
    workers = [host for pool in cluster.nodes for host in pool.hosts if host != head]
    provider = {"type": "local", "head_ip": head, "worker_ips": workers}
    of_head = next((pool for pool in cluster.nodes if head in pool.hosts), None)
    own = [_ray.labels_option(_ray.labels(of_head))] if of_head else ["--num-cpus=0"]
    devices = next(filter(None, map(_ray.devices, cluster.nodes)), [])
    rest = {
        **(_ray_up.docker(options, *devices) if options.image else {}),
        "max_workers": len(workers),
        "head_start_ray_commands": _ray_up.head_start(cluster, options, *own),
        "worker_start_ray_commands": _ray_up.worker_start(cluster, '"$LABELS"', before=_which_pool(cluster)),
    }
    return {_ray_up.file_name(cluster): _ray_up.config(cluster, options, provider, rest)}


def _which_pool(cluster: Cluster) -> str:
    """Sets LABELS by the address that a machine has."""
    cases = " ".join(
        f"{'|'.join(pool.hosts)}) LABELS={_ray.labels_option(_ray.labels(pool))};;" for pool in cluster.nodes
    )
    loop = f'LABELS=; for name in $(hostname -I) $(hostname) $(hostname -f); do case "$name" in {cases} esac; done; '
    missing = 'test -n "$LABELS" || { echo "$(hostname -I) is in no pool of the cluster file" >&2; exit 1; }; '
    return loop + missing
