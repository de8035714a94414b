"""What a measurement ran on: processor, memory and accelerators, as the machine itself names them.

A fact that cannot be read is None or left out, never guessed.
"""

import os
import platform
from pathlib import Path
from typing import Any

from orchestrator import gpus


def describe() -> dict[str, Any]:
    """`{cpu, cores, memory_bytes, gpus: [{name, memory_bytes, driver}], system}` of this machine."""
    return {
        "cpu": cpu_name(_read("/proc/cpuinfo")) or _mac_cpu_name(),
        "cores": os.cpu_count(),
        "memory_bytes": _memory(),
        "gpus": gpus.probe(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def cpu_name(cpuinfo: str) -> str | None:
    """The processor's name in the text of /proc/cpuinfo."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Processor"):
            return value.strip()
    return None


def _mac_cpu_name() -> str | None:
    return gpus.output("sysctl", "-n", "machdep.cpu.brand_string").strip() or None


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
