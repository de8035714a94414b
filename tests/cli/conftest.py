"""`orch` as a user runs it: a process with a home of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Orch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def orch(tmp_path: Path) -> Orch:
    def run(*arguments: str, cwd: Path = ROOT, home: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "orchestrator.cli.main", *arguments]
        environment = {**os.environ, "ORCH_HOME": str(home or tmp_path / "home"), "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)

    return run
