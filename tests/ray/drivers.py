"""What the tests start in the places of a cluster: drivers and stages that note where they run."""

import json
import time
from pathlib import Path
from typing import Any


def note(folder: str, name: str) -> None:
    """Write down the node, then run a stage there and write down where that was; ends when a file says so."""
    import ray

    from orchestrator.ray import stage

    mine = ray.get_runtime_context().get_node_id()
    module = "tests.ray.drivers"
    found = stage.run(name, module, (folder,), num_cpus=1, num_gpus=1, unwanted=lambda: False, grace_s=1)
    _write(Path(folder) / f"{name}.json", {"driver": mine, "stage": found})
    while not (Path(folder) / "end").exists():
        time.sleep(0.05)


def execute(folder: str) -> dict[str, Any]:
    """A stage: where it runs, and which accelerators it may see."""
    import os

    import ray

    return {"node": ray.get_runtime_context().get_node_id(), "devices": os.environ.get("CUDA_VISIBLE_DEVICES")}


def until_stopped(folder: str, name: str) -> None:
    """Run a stage that goes on until it is stopped, and write down what it then said."""
    from orchestrator.ray import stage

    asked = Path(folder) / "stop"
    module = "tests.ray.endless"
    found = stage.run(name, module, (folder,), num_cpus=1, num_gpus=0, unwanted=asked.exists, grace_s=20)
    _write(Path(folder) / f"{name}.json", found)


def _write(path: Path, what: Any) -> None:
    path.with_suffix(".part").write_text(json.dumps(what))
    path.with_suffix(".part").rename(path)
