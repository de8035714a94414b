"""Workers as processes."""

import sys
from pathlib import Path

from orchestrator.controller.execute import run_worker

STANDS_IN = """#!/bin/sh
ls "$PYTHONPATH" > "$(dirname "$4")/seen"
echo '{"value": 3}' > "$4"
"""


def test_a_worker_in_another_environment_sees_the_package_and_nothing_that_is_installed_beside_it(tmp_path: Path):
    python = tmp_path / "python"
    python.write_text(STANDS_IN)
    python.chmod(0o755)
    assert run_worker("merge", {}, tmp_path, print, python=[str(python)]) == {"value": 3}
    assert (tmp_path / "seen").read_text() == "orchestrator\n"


def test_the_package_is_found_again_where_orch_was_moved(tmp_path: Path):
    link = tmp_path / "package" / "orchestrator"
    link.parent.mkdir()
    link.symlink_to("/no/such/orchestrator")
    protocol = "import sys, orchestrator.workers.protocol; open(sys.argv[4], 'w').write('{}')"
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} -c "{protocol}" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    assert run_worker("merge", {}, tmp_path, print, python=[str(tmp_path / "python")]) == {}
