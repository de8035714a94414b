"""How Ray is started, whoever starts it: variables and `ray start` lines that all launchers share (pure)."""

import shlex
from collections.abc import Mapping

from orchestrator import gpus
from orchestrator.clusters.cluster import Cluster, NodePool
from orchestrator.clusters.match import POOL_LABEL

PROGRAM = "ray"
TOKEN = "~/.ray/auth_token"
"""Where Ray looks for the token, which `ray get-auth-token --generate` makes."""
AUTH = {"RAY_AUTH_MODE": "token"}
HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
}
"""Of the head. A dead node is noticed after about 3 s and a partition after 15 s; Ray's defaults take 14 s and 65 s."""
RECONNECT = {"RAY_gcs_rpc_server_reconnect_timeout_s": "600"}
"""A node waits so long for a head that is gone; after Ray's default of 60 s it would exit, with all that runs on it."""
BAD_VARIABLE = "ROCR_VISIBLE_DEVICES"
"""Ray refuses to start where it is set without HIP_VISIBLE_DEVICES, and Slurm sets it."""
INSTALLED = (
    'python3 -c "import ray, orchestrator" || '
    '{ echo "ray and orch are not installed here: name an image, or commands in launcher.setup" >&2; exit 1; }'
)
"""Says at once what would show itself as a worker that cannot import orch."""
REDIS = "redis://"
KEEPING = "an absolute path on the head, which keeps it in RocksDB there, or redis://HOST:PORT"


def gcs_problem(gcs: str | None) -> str | None:
    """What is wrong with where the head keeps its state; None: nothing."""
    if gcs is None or gcs.startswith("/") or (gcs.startswith(REDIS) and ":" in gcs.removeprefix(REDIS)):
        return None
    return f"{gcs!r} is neither {KEEPING}"


def head_variables(cluster: Cluster, gcs: str | None) -> dict[str, str]:
    """Of the head; `gcs`: where it keeps its state over a restart."""
    kept: dict[str, str] = {}
    if gcs and gcs.startswith(REDIS):
        address = gcs.removeprefix(REDIS)
        kept = {"RAY_REDIS_ADDRESS": address, "RAY_external_storage_namespace": f"orch-{cluster.name}"}
    elif gcs:
        kept = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": gcs}
    return {**AUTH, **HEALTH, **RECONNECT, **kept}


def worker_variables() -> dict[str, str]:
    """Of every other node."""
    return {**AUTH, **RECONNECT}


def labels(pool: NodePool) -> dict[str, str]:
    """Of the pool's nodes in Ray."""
    return {POOL_LABEL: pool.name, **pool.labels}


def labels_option(found: Mapping[str, str]) -> str:
    """As `ray start` takes them."""
    return "--labels=" + ",".join(f"{name}={value}" for name, value in found.items())


def port(cluster: Cluster) -> str:
    """Of the head, as the cluster's address says."""
    return cluster.address.rsplit(":", 1)[1]


def line(variables: Mapping[str, str], *start: str) -> str:
    """One shell line that starts Ray; an argument that holds a variable of the shell is in double quotes already."""
    exports = "".join(f"export {name}={shlex.quote(value)}; " for name, value in variables.items())
    return f"{exports}unset {BAD_VARIABLE}; ulimit -n 65536; {PROGRAM} start {' '.join(start)}"


def devices(pool: NodePool) -> list[str]:
    """Options of `docker run` that show AMD accelerators in a container; for NVIDIA's Ray finds the runtime itself."""
    if not pool.accelerator or not gpus.is_amd(pool.accelerator):
        return []
    return ["--device=/dev/kfd", "--device=/dev/dri", "--group-add=video"]
