"""What every worker program says of itself at its end."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import ROOT


def test_a_result_carries_what_the_process_held_at_most(tmp_path: Path) -> None:
    code = (
        "from orchestrator.workers.protocol import main\n"
        "def work(request):\n    held = bytearray(64_000_000)\n    return {'size': len(held)}\n"
        "main(work)"
    )
    (tmp_path / "request.json").write_text("{}")
    command = [sys.executable, "-c", code, str(tmp_path / "request.json"), str(tmp_path / "result.json")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["size"] == 64_000_000
    assert 64_000_000 < result["peak_memory"]["rss"] < 10**9
    assert "reserved" not in result["peak_memory"], "there is no accelerator to hold memory of"
