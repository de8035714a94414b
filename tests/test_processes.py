"""Guarded processes: how they are stopped."""

import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from orchestrator import processes

_LEADER = """
import signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "input(); print('drained')"], stdin=subprocess.PIPE)

def drain(*_):
    child.communicate(b"\\n")
    sys.exit(child.returncode)

signal.signal(signal.SIGTERM, drain)
print("ready", flush=True)
signal.pause()
"""


def test_a_command_that_is_stopped_still_has_its_children_to_finish_with(tmp_path):
    log = tmp_path / "log"
    process = processes.start([sys.executable, "-c", _LEADER], log=log)
    while "ready" not in process.last_lines():
        assert process.poll() is None, process.last_lines()
        time.sleep(0.01)
    assert process.stop() == 0
    assert process.last_lines().splitlines() == ["ready", "drained"]


def test_a_port_is_free_until_someone_listens_and_after():
    port = processes.free_port()
    assert processes.is_free(port)
    with socket.create_server(("127.0.0.1", port)):
        assert not processes.is_free(port)
    assert processes.is_free(port)


def test_a_command_and_its_children_are_seen_to_compute(tmp_path):
    busy = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    process = processes.start([sys.executable, "-c", busy], log=tmp_path / "log")
    idle = processes.start(["sleep", "60"], log=tmp_path / "idle")
    while process.cpu_seconds() < 0.2:
        assert process.poll() is None, process.last_lines()
        time.sleep(0.01)
    assert idle.cpu_seconds() < 0.1
    process.stop()
    idle.stop()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="its children are found in /proc")
def test_a_command_ends_with_its_children_even_if_its_guard_is_stopped(tmp_path):
    pids = tmp_path / "pids"
    os.mkfifo(pids)
    process = processes.start(["sh", "-c", f"sleep 100 & echo $$ $! > {pids}; wait"], log=tmp_path / "log", grace_s=0.1)
    found = [int(pid) for pid in pids.read_text().split()]
    os.kill(process.pid, signal.SIGSTOP)
    process.stop()
    assert len(found) == 2
    deadline = time.monotonic() + 5
    while any(_lives(pid) for pid in found):  # the kernel takes a moment
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _lives(pid: int) -> bool:
    """A zombie that nobody has waited for yet does not."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
