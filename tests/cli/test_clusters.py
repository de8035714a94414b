"""`orch clusters`: what is listed, what is written, and that nothing is applied unasked."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Orch

SLURM = """name: lab
address: 127.0.0.1:1
nodes: [{cpus: 8, accelerator: H100, accelerators: 8, usd_per_hour: $16}]
launcher: {name: slurm}
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "clusters").mkdir()
    (tmp_path / "clusters" / "lab.yaml").write_text(SLURM)
    return tmp_path


def test_the_list_shows_every_file_also_one_that_has_problems(orch: Orch, here: Path) -> None:
    (here / "clusters" / "bad.yaml").write_text("name: bad\nadress: local\n")
    done = orch("clusters", "list", cwd=here)
    assert done.returncode == 0
    bad, lab = done.stdout.splitlines()[1:]
    assert "bad file" in bad
    assert lab.split() == ["lab", "127.0.0.1:1", "not", "running", "1", "8", "H100", "16.00", "clusters/lab.yaml"]
    rows = {row["cluster"]: row for row in json.loads(orch("clusters", "list", "--json", cwd=here).stdout)}
    assert "unknown key 'adress'" in rows["bad"]["problem"]
    assert (rows["lab"]["reachable"], rows["lab"]["accelerators"]) == (False, {"H100": 8})


def test_a_cluster_that_does_not_run_is_an_infrastructure_error_at_once(orch: Orch, here: Path) -> None:
    done = orch("clusters", "check", "lab", cwd=here)
    assert done.returncode == 5
    assert "cluster lab: nothing listens at 127.0.0.1:1" in done.stderr
    assert "`orch clusters up lab`" in done.stderr


def test_up_writes_for_review_and_starts_nothing(orch: Orch, here: Path) -> None:
    done = orch("clusters", "up", "lab", cwd=here)
    assert done.returncode == 0
    assert "nothing was started: read them, then --apply" in done.stdout
    assert "cd clusters/lab.up && sbatch lab.sbatch" in done.stdout
    assert (here / "clusters" / "lab.up" / "lab.sbatch").is_file()
    assert [path.name for path in (here / "clusters").glob("*.yaml")] == ["lab.yaml"], "the list stays as it was"
    applied = orch("clusters", "up", "lab", "--apply", cwd=here)
    assert applied.returncode == 5
    assert "sbatch is not installed here" in applied.stderr


def test_down_shows_the_command_and_ends_nothing(orch: Orch, here: Path) -> None:
    done = orch("clusters", "down", "lab", cwd=here)
    assert done.stdout == ("cd clusters/lab.up && scancel --me --name=orch-lab\nnothing was ended; --apply runs this\n")
    assert orch("clusters", "down", "lab", "--apply", cwd=here).returncode == 2, "nothing was written"


def test_an_unknown_cluster_is_named_with_the_nearest(orch: Orch, here: Path) -> None:
    done = orch("clusters", "check", "lap", cwd=here)
    assert done.returncode == 2
    assert "no cluster 'lap'; did you mean 'lab'? (known: lab, local)" in done.stderr


@pytest.mark.slow
def test_this_machines_ray_is_started_and_stopped(orch: Orch, here: Path) -> None:
    home = here / "home"
    started = orch("clusters", "up", "local", cwd=here, home=home)
    assert started.stdout.startswith("Ray of local runs at 127.0.0.1:")
    try:
        assert (home / "ray.json").exists()
        checked = orch("clusters", "check", cwd=here, home=home)
        assert checked.stdout.splitlines()[-1] == "nothing is wrong"
        assert (home / "ray.json").exists(), "what ran before goes on"
    finally:
        stopped = orch("clusters", "down", "local", cwd=here, home=home)
    assert stopped.stdout.startswith("stopped")
    assert not (home / "ray.json").exists()
