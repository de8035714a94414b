"""What a measurement ran on: processor, memory and accelerators, as the machine itself names them.

A fact that cannot be read is None or left out, never guessed.
"""

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

_TIMEOUT_S = 10


def describe() -> dict[str, Any]:
    """`{cpu, cores, memory_bytes, gpus: [{name, memory_bytes, driver}], system}` of this machine."""
    return {
        "cpu": cpu_name(_read("/proc/cpuinfo")) or _output("sysctl", "-n", "machdep.cpu.brand_string").strip() or None,
        "cores": os.cpu_count(),
        "memory_bytes": _memory(),
        "gpus": nvidia(_output("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"))
        + amd(_output("amd-smi", "static", "--asic", "--vram", "--driver", "--json")),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def cpu_name(cpuinfo: str) -> str | None:
    """The processor's name in the text of /proc/cpuinfo."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Processor"):
            return value.strip()
    return None


def nvidia(text: str) -> list[dict[str, Any]]:
    """GPUs in `nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader`; memory in MiB there."""
    rows = [[field.strip() for field in line.split(",")] for line in text.splitlines()]
    return [
        {"name": name, "memory_bytes": int(memory.removesuffix(" MiB")) * 2**20, "driver": driver}
        for name, memory, driver in (row for row in rows if len(row) == 3)
        if memory.removesuffix(" MiB").isdecimal()
    ]


def amd(text: str) -> list[dict[str, Any]]:
    """GPUs in `amd-smi static --asic --vram --driver --json`: a list, or under `gpu_data` since ROCm 6.4; MB is MiB."""
    try:
        data = json.loads(text or "[]")
    except ValueError:
        return []
    found = data.get("gpu_data", []) if isinstance(data, dict) else data
    return [
        {
            "name": gpu["asic"]["market_name"],
            "memory_bytes": int(gpu["vram"]["size"]["value"]) * 2**20,
            "driver": gpu["driver"].get("version", gpu["driver"].get("driver_version")),
        }
        for gpu in found
        if {"asic", "vram", "driver"} <= gpu.keys()
    ]


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


def _output(*command: str) -> str:
    """What a command prints; empty where it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
