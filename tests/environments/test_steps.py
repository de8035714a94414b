"""What is said about a step of an installation that failed."""

from pathlib import Path

import pytest

from orchestrator.environments import steps
from orchestrator.errors import InfrastructureError, InputError

LOG = Path("/home/engines/x.log")


def test_a_full_disk_is_bad_input_with_what_to_free():
    said = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    error = steps.failure("installing vllm 0.32.0", said, 1, LOG)
    assert isinstance(error, InputError)
    assert "ORCH_HOME" in str(error)


def test_an_index_that_cannot_be_reached_is_not_a_missing_version():
    said = "WARNING: Retrying after connection broken by 'X'\nERROR: No matching distribution found for torch==2.13.0\n"
    error = steps.failure("installing vllm 0.32.0", said, 1, LOG)
    assert "cannot be reached:\nERROR: No matching distribution found for torch==2.13.0" in error.message
    assert "pip config list" in str(error.next_step)


def test_anything_else_is_told_by_its_own_error_lines_or_the_end():
    said = "-- fine\nCMake Error at x (message):\n  CUDA Toolkit not found\n\n-- end"
    assert "exit code 1:\nCMake Error at x (message):\n  CUDA" in steps.failure("building", said, 1, LOG).message
    said = "[3/9] a.o\n/tmp/a.cpp:1:2: error: no such type\nint x\n"
    assert "exit code 1:\n/tmp/a.cpp" in steps.failure("building", said, 1, LOG).message
    assert "exit code 3:\nb" in steps.failure("building", "a\n" * 9 + "b\n" * 6, 3, LOG).message
    assert "SIGKILL" in steps.failure("building", "", 137, LOG).message


def test_a_step_keeps_its_output_and_only_its_own_is_the_cause(tmp_path):
    log = tmp_path / "log"
    steps.run(["sh", "-c", "echo ERROR of before"], what="one", log=log)
    with pytest.raises(InfrastructureError, match=r"^two failed: exit code 2:\nnow\n"):
        steps.run(["sh", "-c", "echo now; exit 2"], what="two", log=log)
    assert log.read_text().splitlines()[:2] == ["$ sh -c echo ERROR of before", "ERROR of before"]


def test_a_step_does_not_see_the_packages_of_orch(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"/elsewhere:{Path(__file__).parents[2]}")
    steps.run(["sh", "-c", 'echo "[$PYTHONPATH]"'], what="one", log=tmp_path / "log")
    assert (tmp_path / "log").read_text().splitlines()[-1] == "[]"
