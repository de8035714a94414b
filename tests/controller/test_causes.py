"""What a worker's process died of."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.controller import causes
from orchestrator.controller.execute import run_worker
from orchestrator.errors import InfrastructureError, WorkerDiedError, from_record

CGROUPS = Path("/sys/fs/cgroup/memory")


@pytest.mark.parametrize(
    ("code", "said", "cause"),
    [
        (1, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB.", "gpu_memory"),
        (1, "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 20.00 MiB.", "gpu_memory"),
        (1, "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "gpu_memory"),
        (1, "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried", "host_memory"),
        (1, "Traceback\nMemoryError", "host_memory"),
        (134, "[Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=4, OpType=BROADCAST)", "hang"),
        (1, "RuntimeError: CUDA error: uncorrectable ECC error encountered", "unknown"),
        (1, "torch.distributed.DistBackendError: NCCL error in: x.cpp:1, ncclRemoteError: A call failed", "unknown"),
        (139, "Segmentation fault", "unknown"),
        (137, "", "unknown"),
    ],
)
def test_a_cause_is_found_in_what_a_process_has_said(code: int, said: str, cause: str) -> None:
    found = causes.died_of(code, f"before\n{said}\nframe #0: c10::Error", kernel_kills=0)
    assert found is not None
    assert found.cause == cause


def test_an_error_of_the_program_itself_has_no_cause() -> None:
    assert causes.died_of(1, "ValueError: no MemoryError here", kernel_kills=1) is None


def test_a_kill_by_the_kernel_is_told_from_any_other() -> None:
    found = causes.died_of(137, "", kernel_kills=1)
    assert found is not None
    assert found.cause == "host_memory"


def _worker(folder: Path, code: str, first: str = "") -> list[str]:
    (folder / "worker.py").write_text(code)
    (folder / "python").write_text(f"#!/bin/sh\n{first}\nexec {sys.executable} {folder / 'worker.py'}\n")
    (folder / "python").chmod(0o755)
    return [str(folder / "python")]


def test_a_worker_that_says_why_it_dies_is_tried_again_by_that_cause_and_one_that_fails_is_not(tmp_path: Path) -> None:
    dies = _worker(tmp_path, "raise RuntimeError('CUDA out of memory. Tried 1 GiB')")
    with pytest.raises(WorkerDiedError, match=r"it ran out of GPU memory: CUDA out of memory\. Tried 1 GiB") as caught:
        run_worker("merge", {}, tmp_path, print, python=dies)
    assert caught.value.cause == "gpu_memory"
    fails = _worker(tmp_path, "raise KeyError('rows')")
    with pytest.raises(InfrastructureError, match="exit code 1") as other:
        run_worker("merge", {}, tmp_path, print, python=fails)
    assert not isinstance(other.value, WorkerDiedError), "what an earlier attempt has left in the log is not its cause"


def test_a_hang_of_a_collective_becomes_an_error_by_names_that_the_installed_torch_reads(tmp_path: Path) -> None:
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        pytest.skip("torch is not installed")
    package = Path(found.origin).parent
    files = ("include/torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp", "distributed/distributed_c10d.py")
    known = "".join((package / file).read_text() for file in files)
    assert [name for name in causes.COLLECTIVES if f'"{name}"' not in known] == []

    python = _worker(tmp_path, "", first=f"env > {tmp_path}/environment; echo '{{}}' > \"$4\"")
    run_worker("merge", {}, tmp_path, print, python=python)
    seen = (tmp_path / "environment").read_text().splitlines()
    assert "TORCH_NCCL_ASYNC_ERROR_HANDLING=3" in seen


def test_a_cause_survives_the_way_over_a_process_boundary() -> None:
    found = from_record(WorkerDiedError("it hung", cause="hang", node="n1").as_record() | {"attempt": 2})
    assert isinstance(found, WorkerDiedError)
    assert (found.cause, found.node) == ("hang", "n1")


@pytest.fixture
def small_memory() -> Iterator[Path]:
    """A control group of 64 MB."""
    group = CGROUPS / f"orch-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text("64000000")
    except OSError as error:
        pytest.skip(f"memory control groups cannot be made here: {error}")
    yield group
    subprocess.run(["rmdir", str(group)], check=True)


def test_main_memory_that_runs_out_is_named(tmp_path: Path, small_memory: Path) -> None:
    python = _worker(tmp_path, "bytearray(256_000_000)", first=f"echo $$ > {small_memory}/cgroup.procs")
    with pytest.raises(WorkerDiedError, match="the kernel killed it: main memory") as caught:
        run_worker("merge", {}, tmp_path, print, python=python)
    assert caught.value.cause == "host_memory"
