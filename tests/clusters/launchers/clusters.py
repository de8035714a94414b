"""Clusters that the tests of the launchers write files for."""

from typing import Any

from orchestrator.catalog import catalog
from orchestrator.clusters import launchers
from orchestrator.clusters.checks import problems
from orchestrator.clusters.cluster import Cluster, NodePool
from orchestrator.plugins import load
from orchestrator.units import Bytes

POOLS = [
    NodePool(
        count=2,
        cpus=192,
        memory=Bytes.parse("2TB"),
        accelerator="H100",
        accelerators=8,
        instance="big",
        hosts=["10.0.0.1", "10.0.0.2"],
    ),
    NodePool(
        count=1,
        cpus=192,
        memory=Bytes.parse("2TB"),
        accelerator="MI300X",
        accelerators=8,
        spot=True,
        instance="cheap",
        hosts=["10.0.0.3"],
        labels={"rack": "r2"},
    ),
]
OPTIONS: dict[str, dict[str, Any]] = {
    "aws": {"region": "us-east-1"},
    "gcp": {"project": "p", "region": "us-central1", "availability_zone": "us-central1-a"},
    "on_premises": {},
    "kuberay": {"image": "registry/orch:1"},
    "slurm": {},
}


def cluster(launcher: str, pools: list[NodePool] | None = None, **options: Any) -> Cluster:
    """With the options that the launcher cannot do without, and these."""
    chosen = {"name": launcher, **OPTIONS[launcher], **options}
    return Cluster(name="lab", address="10.0.0.1:6379", nodes=pools or POOLS, launcher=chosen)


def text(found: Cluster) -> str:
    """Of the one file that every launcher writes."""
    module = load(launchers, (found.launcher or {})["name"])
    (only,) = module.files(found, module.Options.model_validate(found.launcher_options)).values()
    return str(only)


def wrong(found: Cluster) -> list[str]:
    """What the check of its file would say."""
    return [f"{'.'.join(map(str, key))}: {what}" for key, what in problems(found, catalog.load())]
