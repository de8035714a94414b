"""What a worker's process died of, from its exit code, the end of its log and the kernel's count of its own kills.

Libraries say what happened only in words, on their way down; NCCL and RCCL say it in the same ones.
"""

import re
import signal
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from orchestrator.errors import Cause

_SAID: list[tuple[str, Cause, str]] = [
    (r"Watchdog caught collective operation timeout.*", "hang", "a collective of NCCL or RCCL never ended"),
    (
        r"(?:CUDA|HIP|MPS backend) out of memory.*|(?:CUDA|HIP) error: out of memory|hipErrorOutOfMemory.*"
        r"|CUBLAS_STATUS_ALLOC_FAILED|HIPBLAS_STATUS_ALLOC_FAILED|Cuda failure \d* ?'out of memory'",
        "gpu_memory",
        "it ran out of GPU memory",
    ),
    (
        r"uncorrectable ECC error.*|GPU has fallen off the bus|CUDA-capable device\(s\) is/are busy or unavailable",
        "unknown",
        "a fault of the GPU",
    ),
    (
        r"nccl(?:Remote|System|Internal|UnhandledCuda)Error|Dist(?:Network|Store)Error: .*"
        r"|ProcessGroupNCCL's watchdog got stuck.*|gloo/transport.*Connection closed by peer",
        "unknown",
        "the connection to another rank broke",
    ),
    (
        r"DefaultCPUAllocator: can't allocate memory.*|^MemoryError.*|std::bad_alloc|Cannot allocate memory",
        "host_memory",
        "it ran out of main memory",
    ),
]
COLLECTIVES = {
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "3",
    "TORCH_NCCL_ENABLE_MONITORING": "1",
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
    "TORCH_FR_BUFFER_SIZE": "2000",
    "TORCH_NCCL_TRACE_BUFFER_SIZE": "2000",
}
"""Environment of every worker: a collective that waits for longer than `ddp_timeout` (a setting of `train.extra`), or a
watchdog that is stuck itself, ends the process, which says then what each rank was waiting for. ROCm builds of PyTorch
read the same names; the last two are the name of the same setting in newer and in older ones."""


class Death(NamedTuple):
    """Why a process ended, and how to say it."""

    cause: Cause
    words: str


def died_of(code: int, said: str, kernel_kills: int) -> Death | None:
    """None for an error of the program itself, which would only come again.

    `code` as a shell says it, `said` what the process has written, `kernel_kills` how many processes the kernel has
    killed meanwhile because memory ran out.
    """
    for pattern, cause, words in _SAID:
        if found := re.search(pattern, said, re.MULTILINE):
            return Death(cause, f"{words}: {found[0][:300]}")
    if code == 128 + signal.SIGKILL and kernel_kills:
        return Death("host_memory", "the kernel killed it: main memory, or its share of it, was used up")
    return Death("unknown", "it was killed from outside, or crashed") if code > 128 else None


def kernel_kills() -> int:
    """Processes that the kernel has killed since it started because memory ran out; 0 where it does not tell."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/vmstat").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("oom_kill ")).split()[1])
    return 0
