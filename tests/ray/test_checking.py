"""`orch clusters check` against a real Ray of two nodes on this machine, whose accelerators are only declared."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.processes import free_port
from orchestrator.ray.connect import listens

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
FILE = """name: lab
address: {address}
storage: {storage}
nodes:
  - {{count: 1, cpus: 1}}
  - {{count: 1, cpus: 1, accelerator: H100, accelerators: 8}}
  - {{count: 2, cpus: 1, accelerator: MI300X, accelerators: 8}}
"""


def _ray(environment: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", *arguments]
    small = ["--num-cpus=1", "--object-store-memory=100000000"]
    return subprocess.Popen([*command, *small], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "of-this-test-only"}
    return {**os.environ, **token, "ORCH_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}


@pytest.fixture
def address(environment: dict[str, str]) -> Iterator[str]:
    address = f"127.0.0.1:{free_port()}"
    port = address.partition(":")[2]
    started = [_ray(environment, "--head", f"--port={port}", "--include-dashboard=false", "--labels=orch.pool=cpu")]
    try:
        deadline = time.monotonic() + 60
        while not listens(address) and time.monotonic() < deadline:
            time.sleep(0.1)
        started.append(_ray(environment, f"--address={address}", "--num-gpus=8", "--labels=gpu.family=h100"))
        yield address
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(timeout=30)


def _check(file: Path, environment: dict[str, str], *options: str) -> tuple[int, dict[str, Any], str]:
    command = [sys.executable, "-m", "orchestrator.cli.main", "clusters", "check", str(file), "--json", *options]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def _until_two_nodes(file: Path, environment: dict[str, str]) -> tuple[int, dict[str, Any], str]:
    """The second node joins some seconds after the first."""
    deadline = time.monotonic() + 60
    while len((found := _check(file, environment))[1].get("nodes", [])) < 2:
        assert time.monotonic() < deadline, found
    return found


def test_every_node_is_asked_and_what_differs_from_the_file_is_told(
    tmp_path: Path, environment: dict[str, str], address: str
) -> None:
    (tmp_path / "shared").mkdir()
    file = tmp_path / "lab.yaml"
    file.write_text(FILE.format(address=address, storage=tmp_path / "shared"))
    code, found, error = _until_two_nodes(file, environment)
    assert code == 5
    assert "error: cluster lab: 2 problems" in error
    assert found["problems"] == ["pool mi300xx8: 0 of 2 nodes are in Ray, 2 missing"]
    nodes = {node["pool"]: node for node in found["nodes"]}
    assert nodes.keys() == {"cpu", "h100x8"}
    assert nodes["cpu"]["head"]
    assert nodes["cpu"]["problems"] == []
    assert nodes["h100x8"]["problems"] == ["Ray hands out 8 accelerators, the node's tools find 0"]
    for node in nodes.values():
        assert node["report"]["sees_home"]
        assert node["report"]["storage_problem"] is None
        assert abs(node["clock_skew_s"]) <= 0.5 + node["clock_skew_error_s"]
    assert not list((tmp_path / "shared").iterdir()), "nothing is left behind"


def test_this_machine_is_checked_with_a_ray_that_is_started_for_it_and_stopped_again(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    code, found, error = _check(Path("local"), environment)
    assert (code, error) == (0, "")
    (node,) = found["nodes"]
    assert node["head"]
    assert not (tmp_path / "home" / "ray.json").exists()
