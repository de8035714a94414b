"""Workers as processes."""

import sys
from pathlib import Path

import pytest

from orchestrator.controller.execute import execute, run_worker
from orchestrator.errors import StaleClaimError
from orchestrator.fencing import Writer, holder
from orchestrator.store.store import Store
from tests.controller.executing import planned

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


def test_an_attempt_that_begins_after_a_newer_one_does_nothing(tmp_path: Path):
    store = Store(tmp_path / "home")
    run = planned(store, prepare={"base_model": {"prepare": "touch {out}/model", "path": "model"}})
    folder = store.home / "stages" / "prepare-prepare-digest"
    folder.mkdir(parents=True)
    Writer(folder=folder, run=run, fence=2).begin()
    with pytest.raises(StaleClaimError, match="attempt 1 of"):
        execute(str(store.home), run, "prepare", 1)
    assert not (store.home / "prepared").exists()
    assert execute(str(store.home), run, "prepare", 3) is not None
    assert holder(folder) == Writer(folder=folder, run=run, fence=3)
