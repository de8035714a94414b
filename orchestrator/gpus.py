"""This machine's accelerators, as the vendors' tools name them, and the short names that recipes use for them.

A fact that cannot be read is None or left out, never guessed.
"""

import json
import re
import subprocess
from typing import Any

TIMEOUT_S = 10
_OF_NVIDIA = "H20 H100 H200 GH200 A100 A40 A10 A10G B200 GB200 B300 L4 L40 L40S T4 V100 GB10"
_OF_AMD = "MI210 MI250 MI250X MI300A MI300X MI325X MI350X MI355X"
KINDS = (*_OF_NVIDIA.split(), *_OF_AMD.split())
_ROCM = ("--showproductname", "--showmeminfo", "vram", "--showdriverversion", "--json")
_ROCM_TOTAL, _ROCM_USED = "VRAM Total Memory (B)", "VRAM Total Used Memory (B)"


def probe() -> list[dict[str, Any]]:
    """`[{name, memory_bytes, driver}]` of every GPU of this machine."""
    asked = output("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    found = amd(output("amd-smi", "static", "--asic", "--vram", "--driver", "--json"))
    return nvidia(asked) + (found or rocm(output("rocm-smi", *_ROCM)))


def free() -> list[int | None]:
    """Free bytes of every GPU of this machine, in the order of `probe`; None where it cannot be read."""
    asked = output("nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader")
    found = amd_free(output("amd-smi", "metric", "--mem-usage", "--json"))
    return [_mebibytes(line.strip()) for line in asked.splitlines() if line.strip()] + (
        found or rocm_free(output("rocm-smi", *_ROCM))
    )


def kind(name: str, memory_bytes: int | None) -> str:
    """What a recipe calls it: `NVIDIA H100 80GB HBM3` is H100, `NVIDIA A100-SXM4-80GB` A100-80GB."""
    words = re.split(r"[^A-Za-z0-9]+", name)
    found = next((known for known in KINDS if known in words), name.strip())
    return f"A100-{'80GB' if (memory_bytes or 0) > 50e9 else '40GB'}" if found == "A100" else found


def is_amd(kind: str) -> bool:
    """Whether AMD makes it, by the name that a recipe uses."""
    return kind in _OF_AMD.split()


def nvidia(text: str) -> list[dict[str, Any]]:
    """GPUs in `nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader`; memory in MiB there."""
    rows = [[field.strip() for field in line.split(",")] for line in text.splitlines()]
    return [
        {"name": name, "memory_bytes": _mebibytes(memory), "driver": driver}
        for name, memory, driver in (row for row in rows if len(row) == 3)
    ]


def amd(text: str) -> list[dict[str, Any]]:
    """GPUs in `amd-smi static --asic --vram --driver --json`; MB is MiB."""
    return [gpu for gpu in map(_amd, _entries(text)) if gpu]


def amd_free(text: str) -> list[int | None]:
    """Free bytes in `amd-smi metric --mem-usage --json`."""
    return [_amd_free(entry) for entry in _entries(text)]


def rocm(text: str) -> list[dict[str, Any]]:
    """GPUs in `rocm-smi --showproductname --showmeminfo vram --showdriverversion --json`, on nodes without amd-smi."""
    data = _json(text)
    system = data.pop("system", {}) if isinstance(data, dict) else {}
    return [
        {
            "name": card.get("Card Series") or card.get("Card series") or "AMD GPU",
            "memory_bytes": _number(card.get(_ROCM_TOTAL)),
            "driver": system.get("Driver version"),
        }
        for card in _cards(data)
    ]


def rocm_free(text: str) -> list[int | None]:
    """Free bytes in the same."""
    pairs = [(_number(card.get(_ROCM_TOTAL)), _number(card.get(_ROCM_USED))) for card in _cards(_json(text))]
    return [None if total is None or used is None else total - used for total, used in pairs]


def _cards(data: Any) -> list[dict[str, Any]]:
    return [card for name, card in data.items() if name.startswith("card")] if isinstance(data, dict) else []


def _entries(text: str) -> list[Any]:
    """What amd-smi lists, one for a GPU: a list, or under `gpu_data` since ROCm 6.4."""
    data = _json(text)
    found = data.get("gpu_data", []) if isinstance(data, dict) else data
    return found if isinstance(found, list) else []


def _json(text: str) -> Any:
    try:
        return json.loads(text or "[]")
    except ValueError:
        return []


def _amd(gpu: dict[str, Any]) -> dict[str, Any] | None:
    try:
        size, driver = gpu["vram"]["size"]["value"], gpu["driver"]
        version = driver.get("version", driver.get("driver_version"))
        return {"name": gpu["asic"]["market_name"], "memory_bytes": int(size) * 2**20, "driver": version}
    except (KeyError, TypeError, ValueError, AttributeError):  # "N/A" where a fact cannot be read
        return None


def _amd_free(gpu: dict[str, Any]) -> int | None:
    try:
        return int(gpu["mem_usage"]["free_vram"]["value"]) * 2**20
    except (KeyError, TypeError, ValueError):
        return None


def _number(text: Any) -> int | None:
    return int(text) if str(text).isdecimal() else None


def output(*command: str) -> str:
    """What a command prints; empty where it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def _mebibytes(text: str) -> int | None:
    amount = text.removesuffix(" MiB")
    return int(amount) * 2**20 if amount.isdecimal() else None
