"""Guarded processes: how they are stopped."""

import socket
import sys
import time

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
