"""Stages of a run that has no other, executed in a process of their own as their actor does it."""

import subprocess
import sys
from typing import Any

from orchestrator.clusters.cluster import Cluster
from orchestrator.controller import runs
from orchestrator.planner.plan import Plan, PlannedStage, Resources
from orchestrator.store.store import Store

ACTOR = """
import sys, threading
from orchestrator.controller.execute import execute, stop

threading.Thread(target=lambda: sys.stdin.readline() and stop(), daemon=True).start()
print(execute(*sys.argv[1:]))
"""


def planned(store: Store, **configs: dict[str, Any]) -> str:
    """A run of these stages."""
    stages = [PlannedStage(name=n, config=c, digest=f"{n}-digest", resources=Resources()) for n, c in configs.items()]
    plan = Plan(recipe="demo", path="demo.yaml", directory=str(store.home), cluster=Cluster(name="x", address="local"),
                accelerator=None, stages=stages, gates=[], service=None, obstacles=[])  # fmt: skip
    return runs.create(store, plan)


def executing(store: Store, run: str, stage: str, script: str = ACTOR) -> subprocess.Popen[str]:
    """The process that executes the stage; a line to its stdin stops it, and it prints what came out."""
    command = [sys.executable, "-c", script, str(store.home), run, stage]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
