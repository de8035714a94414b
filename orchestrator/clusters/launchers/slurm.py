"""One job of Slurm that holds all nodes and runs Ray on them; pools are the parts of a heterogeneous job."""

import re
import shlex

from orchestrator.clusters.cluster import Cluster, NodePool
from orchestrator.clusters.launchers import _ray
from orchestrator.clusters.launchers.base import Found
from orchestrator.config import Model

_START_TIMEOUT_S = 300


class Options(Model):
    """Of the `launcher:` section."""

    partitions: dict[str, str] = {}
    """Pool -> partition of its nodes; a pool that is not here takes Slurm's default."""
    time: str | None = None
    """How long the job may last, such as 2-00:00:00; absent: as long as the partition allows."""
    account: str | None = None
    """Who pays."""
    sbatch: list[str] = []
    """More options of sbatch for every pool, such as --exclusive."""
    setup: list[str] = []
    """Shell commands before Ray starts, such as `source /shared/venv/bin/activate`; what they export all nodes get."""
    gcs: str | None = None
    """Where the head keeps its state, so that runs outlive its restart: a path on its disk (RocksDB), or redis://HOST:PORT."""


def problems(cluster: Cluster, options: Options) -> Found:
    """What the cluster lacks."""
    wrong = _ray.gcs_problem(options.gcs)
    if wrong:
        yield ("launcher", "gcs"), wrong
    for name in options.partitions:
        if cluster.pool(name) is None:
            yield ("launcher", "partitions", name), f"there is no pool {name!r}"
    for index, pool in enumerate(cluster.nodes):
        if pool.image:
            yield ("nodes", index, "image"), "Slurm starts Ray on the machine itself; leave it out"
    if not re.fullmatch(r"[\w.-]+", cluster.name):
        yield ("name",), f"{cluster.name!r} is no name of a job: letters, digits, `-`, `_` and `.`"


def files(cluster: Cluster, options: Options) -> dict[str, str]:
    """The script."""
    many = len(cluster.nodes) > 1
    parts = "#SBATCH hetjob\n".join(_requests(cluster, pool, options) for pool in cluster.nodes)
    steps = [_workers(cluster, pool, index, many) for index, pool in enumerate(cluster.nodes)]
    group = "--het-group=0 " if many else ""
    nodes = '"$SLURM_JOB_NODELIST_HET_GROUP_0"' if many else '"$SLURM_JOB_NODELIST"'
    first, setup = cluster.nodes[0], "\n".join(options.setup)
    start = ("--head", "--block", '--node-ip-address="$1"', f"--port={_ray.port(cluster)}", "--disable-usage-stats")
    head = _ray.line(_ray.head_variables(cluster, options.gcs), *start, *_node_options(first))
    text = f"""#!/bin/bash
{parts}
set -eo pipefail
unset {_ray.BAD_VARIABLE}
test -s {_ray.TOKEN} || {{ echo "no {_ray.TOKEN}: ray get-auth-token --generate" >&2; exit 1; }}
{setup}
{_ray.INSTALLED}

head=$(scontrol show hostnames {nodes} | head -n 1)
ip=$(srun {group}--nodes=1 --ntasks=1 -w "$head" hostname -I | awk '{{print $1}}')
address=$ip:{_ray.port(cluster)}
echo "$address" > {cluster.name}.address # what `address:` of the cluster file has to be

srun {group}--nodes=1 --ntasks=1 -w "$head" bash -c {shlex.quote(head)} ray-head "$ip" &

for _ in $(seq {_START_TIMEOUT_S}); do
    if (exec 3<> "/dev/tcp/$ip/{_ray.port(cluster)}") 2> /dev/null; then break; fi
    sleep 1
done

{"".join(steps)}
wait -n # the job ends when one of its parts does
"""
    return {_file_name(cluster): text}


def up_command(cluster: Cluster) -> list[str]:
    """In the folder of the script."""
    return ["sbatch", _file_name(cluster)]


def down_command(cluster: Cluster) -> list[str]:
    """By the name of the job, of whoever calls."""
    return ["scancel", "--me", f"--name={_job(cluster)}"]


def _file_name(cluster: Cluster) -> str:
    return f"{cluster.name}.sbatch"


def _job(cluster: Cluster) -> str:
    return f"orch-{cluster.name}"


def _requests(cluster: Cluster, pool: NodePool, options: Options) -> str:
    wanted = [
        f"--job-name={_job(cluster)}",
        f"--nodes={pool.count}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={pool.cpus}",
        f"--mem={int(pool.memory) // 2**20}M" if pool.memory else "--mem=0",
        *([f"--gpus-per-node={pool.accelerators}"] if pool.accelerators else []),
        *([f"--partition={options.partitions[pool.name]}"] if pool.name in options.partitions else []),
        *([f"--account={options.account}"] if options.account else []),
        *([f"--time={options.time}"] if options.time else []),
        *options.sbatch,
    ]
    return "".join(f"#SBATCH {option}\n" for option in wanted)


def _workers(cluster: Cluster, pool: NodePool, index: int, many: bool) -> str:
    """The step that starts Ray on the nodes of a pool; on those of the first one, less the head's."""
    count = pool.count - (index == 0)
    if not count:
        return ""
    group = f"--het-group={index} " if many else ""
    without = '--exclude="$head" ' if index == 0 else ""
    start = ("--block", '--address="$1"', *_node_options(pool))
    command = shlex.quote(_ray.line(_ray.worker_variables(), *start))
    return f'srun {group}--nodes={count} --ntasks={count} {without}bash -c {command} ray-worker "$address" &\n'


def _node_options(pool: NodePool) -> list[str]:
    numbers = [f"--num-cpus={pool.cpus}", *([f"--num-gpus={pool.accelerators}"] if pool.accelerators else [])]
    return [*numbers, _ray.labels_option(_ray.labels(pool))]
