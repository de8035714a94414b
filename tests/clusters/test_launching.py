"""Files of a launcher: written for review, kept where somebody has edited them, applied by a command."""

from pathlib import Path

import pytest

from orchestrator.clusters import launching
from orchestrator.clusters.cluster import Cluster, NodePool
from orchestrator.errors import InfrastructureError, InputError

SLURM = Cluster(
    name="lab",
    address="10.0.0.1:6379",
    nodes=[NodePool(cpus=8, accelerator="H100", accelerators=8)],
    launcher={"name": "slurm"},
)


def _longer(cluster: Cluster) -> Cluster:
    return cluster.model_copy(update={"launcher": {"name": "slurm", "time": "1:00:00"}})


def test_a_file_follows_the_cluster_until_somebody_edits_it(tmp_path: Path) -> None:
    first = launching.write(SLURM, tmp_path)
    assert [path.name for path in first.files] == ["lab.sbatch"]
    assert launching.write(_longer(SLURM), tmp_path).edited == []
    assert "--time=1:00:00" in (tmp_path / "lab.sbatch").read_text()
    (tmp_path / "lab.sbatch").write_text("#!/bin/bash\n# mine\n")
    for _ in range(2):
        assert launching.write(SLURM, tmp_path).edited == [tmp_path / "lab.sbatch"]
    assert (tmp_path / "lab.sbatch").read_text() == "#!/bin/bash\n# mine\n"


def test_a_program_that_is_missing_is_named_with_what_it_was_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    launching.write(SLURM, tmp_path)
    with pytest.raises(InfrastructureError, match=r"sbatch is not installed here, and sbatch lab\.sbatch needs it"):
        launching.up(SLURM, tmp_path)


def test_a_command_that_fails_is_told_with_its_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    (tmp_path / "sbatch").write_text("#!/bin/bash\nexit 3\n")
    (tmp_path / "sbatch").chmod(0o755)
    launching.write(SLURM, tmp_path)
    with pytest.raises(InfrastructureError, match=r"sbatch lab\.sbatch failed with exit code 3"):
        launching.up(SLURM, tmp_path)


def test_what_was_never_written_cannot_be_ended(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing has been written to"):
        launching.down(SLURM, tmp_path)


def test_a_cluster_without_a_launcher_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no `launcher:` section") as caught:
        launching.write(SLURM.model_copy(update={"launcher": None}), tmp_path / "up")
    assert "(known: aws, gcp, kuberay, on_premises, slurm)" in (caught.value.next_step or "")
    assert not (tmp_path / "up").exists()
