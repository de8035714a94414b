"""The memory of a process and its descendants, sampled from /proc while it runs."""

import os
import threading
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_memory(root: int) -> int:
    """Resident bytes of the process tree; pages that its processes share count for each of them."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:  # the name, in parentheses, may hold anything
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    tree = {root}
    while more := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= more
    return sum(_resident(pid) for pid in tree)


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except OSError:
        return 0


class PeakMemory(threading.Thread):
    """Samples a process tree until the process ends; `peak` in bytes."""

    def __init__(self, pid: int, every_s: float = 0.2) -> None:
        super().__init__(daemon=True)
        self._pid, self._every_s, self._done = pid, every_s, threading.Event()
        self.peak = 0

    def run(self) -> None:
        """Sample."""
        while not self._done.wait(self._every_s):
            self.peak = max(self.peak, resident_memory(self._pid))

    def stop(self) -> int:
        """The peak."""
        self._done.set()
        self.join()
        return self.peak
