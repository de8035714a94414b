"""The Slurm script: what it asks for, and a real Ray that it starts where `srun` is a stand-in for Slurm's."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.clusters.cluster import NodePool
from orchestrator.processes import free_port
from tests.clusters.launchers.clusters import POOLS, cluster, text, wrong

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("pools", [POOLS, POOLS[:1], POOLS[1:]])
def test_bash_reads_it(pools: list[NodePool], tmp_path: Path) -> None:
    script = tmp_path / "lab.sbatch"
    script.write_text(text(cluster("slurm", pools, setup=["source /shared/venv/bin/activate"], gcs="/scratch/gcs")))
    subprocess.run(["bash", "-n", script], check=True)


def test_pools_are_the_parts_of_one_heterogeneous_job() -> None:
    found = text(cluster("slurm", partitions={"mi300xx8-spot": "amd"}, time="2-00:00:00", sbatch=["--exclusive"]))
    first, second = found.split("#SBATCH hetjob\n")
    assert "#SBATCH --nodes=2\n" in first
    assert "#SBATCH --partition" not in first
    assert "#SBATCH --partition=amd\n" in second
    for part in (first, second):
        for option in ("--job-name=orch-lab", "--gpus-per-node=8", "--cpus-per-task=192", "--time=2-00:00:00"):
            assert f"#SBATCH {option}\n" in part
        assert "#SBATCH --exclusive\n" in part
    assert "hetjob" not in text(cluster("slurm", POOLS[:1]))


def test_what_slurm_cannot_do_is_told() -> None:
    pools = [POOLS[0].model_copy(update={"image": "x"})]
    assert wrong(cluster("slurm", pools, partitions={"cpu": "all"})) == [
        "launcher.partitions.cpu: there is no pool 'cpu'",
        "nodes.0.image: Slurm starts Ray on the machine itself; leave it out",
    ]


def _stand_in(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{body}\n")
    (folder / name).chmod(0o755)


@pytest.mark.slow
def test_the_script_starts_a_ray_whose_nodes_carry_the_labels_of_their_pools(tmp_path: Path) -> None:
    tools, home = tmp_path / "tools", tmp_path / "user"
    tools.mkdir()
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text("0123456789abcdef" * 4)
    _stand_in(tools, "scontrol", "echo here")
    _stand_in(tools, "hostname", "echo 127.0.0.1")
    _stand_in(tools, "srun", 'while [[ $1 == -* ]]; do [[ $1 == -w ]] && shift; shift; done; exec "$@"')
    pools = [
        NodePool(cpus=1, accelerator="H100", accelerators=8),
        NodePool(cpus=1, accelerator="MI300X", accelerators=8, labels={"rack": "r2"}),
    ]
    found = cluster("slurm", pools, gcs=str(tmp_path / "gcs")).model_copy(
        update={"address": f"127.0.0.1:{free_port()}"}
    )
    (tmp_path / "lab.sbatch").write_text(text(found))
    (tmp_path / "lab.yaml").write_text(json.dumps(found.model_dump(mode="json", exclude={"launcher"})))
    environment = {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SLURM_JOB_NODELIST_HET_GROUP_0": "here",
        "ROCR_VISIBLE_DEVICES": "0",  # as Slurm sets it
        "ORCH_HOME": str(tmp_path / "home"),
        "RAY_AUTH_MODE": "token",
    }
    job = subprocess.Popen(
        ["bash", "lab.sbatch"], cwd=tmp_path, env=environment, start_new_session=True,
        stdout=(tmp_path / "log").open("w"), stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        nodes = _nodes(tmp_path / "lab.yaml", environment, count=2)
        assert {node["pool"] for node in nodes} == {"h100x8", "mi300xx8"}
        assert {node["labels"].get("rack") for node in nodes} == {None, "r2"}
        assert (tmp_path / "lab.address").read_text() == f"{found.address}\n"
        assert (tmp_path / "gcs" / "session_name").is_file(), "the head keeps its state"
    finally:
        os.killpg(job.pid, signal.SIGTERM)
        job.wait(timeout=60)


def _nodes(file: Path, environment: dict[str, str], count: int) -> list[dict[str, dict[str, str]]]:
    """As `orch clusters check` sees them, once so many have come."""
    command = [sys.executable, "-m", "orchestrator.cli.main", "clusters", "check", str(file), "--json"]
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)
        nodes: list[dict[str, dict[str, str]]] = json.loads(done.stdout or "{}").get("nodes", [])
        if len(nodes) >= count:
            return nodes
        time.sleep(0.5)
    raise AssertionError((file.parent / "log").read_text())
