"""Builds and starts mock_server.c, and reads its log: what really happened, for a client's numbers to be held against.

    with MockServer(folder, ttft_ms=50, itl_ms=10) as server:
        ...  # any OpenAI client against server.url
    for answer in server.log():
        print(answer.number, answer.ttft_ns)

By hand, until Ctrl+C:

    python benchmarks/loadgen/mock_server.py [options of mock_server.c]
"""

import ctypes
import hashlib
import json
import os
import signal
import subprocess
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SOURCE = Path(__file__).with_suffix(".c")


@dataclass(frozen=True)
class Answer:
    """One completion request as the server saw it; times are CLOCK_REALTIME ns."""

    number: int
    """From 1, in the order of their arrival; in the stream's ids and in the first token's text `[r0000000001]`."""
    first_ns: int
    """The kernel's receive timestamp of the request's first byte."""
    last_ns: int
    """The same of its last byte: what the schedule counts from."""
    end_ns: int
    """Right before the last send, or when a broken connection was noticed."""
    connection: int
    asked: int
    chat: bool
    stream: bool
    complete: bool
    kernel_time: bool
    """False: the kernel gave no timestamp, and the arrival is when the process read it."""
    request_id: str
    """The client's x-request-id."""
    times: "array[int]"
    """Right before each token's send."""

    @property
    def ttft_ns(self) -> int:
        """From the arrival of the complete request to the send of its first token."""
        return self.times[0] - self.last_ns

    @property
    def itl_ns(self) -> list[int]:
        """Between the sends of neighbouring tokens."""
        return [later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)]


class _Entry(ctypes.LittleEndianStructure):
    """struct entry of mock_server.c."""

    _fields_ = (
        ("number", ctypes.c_uint64),
        ("first_ns", ctypes.c_int64),
        ("last_ns", ctypes.c_int64),
        ("end_ns", ctypes.c_int64),
        ("connection", ctypes.c_int32),
        ("sent", ctypes.c_int32),
        ("asked", ctypes.c_int32),
        ("chat", ctypes.c_uint8),
        ("stream", ctypes.c_uint8),
        ("complete", ctypes.c_uint8),
        ("kernel_time", ctypes.c_uint8),
        ("request_id", ctypes.c_char * 64),
    )


def build(folder: Path) -> Path:
    """Compile the server into the folder, unless this version of it is there."""
    program = folder / f"mock_server-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]}"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        draft = program.with_suffix(f".{os.getpid()}")
        subprocess.run(["cc", "-O2", "-o", draft, SOURCE], check=True)
        draft.rename(program)
    return program


def read_log(path: Path) -> list[Answer]:
    """The answers of a log, in the order in which they ended."""
    data, at, answers = path.read_bytes(), 0, []
    while at < len(data):
        entry = _Entry.from_buffer_copy(data, at)
        at += ctypes.sizeof(entry)
        times = array("q", data[at : at + 8 * entry.sent])
        at += 8 * entry.sent
        answers.append(
            Answer(
                number=entry.number,
                first_ns=entry.first_ns,
                last_ns=entry.last_ns,
                end_ns=entry.end_ns,
                connection=entry.connection,
                asked=entry.asked,
                chat=bool(entry.chat),
                stream=bool(entry.stream),
                complete=bool(entry.complete),
                kernel_time=bool(entry.kernel_time),
                request_id=entry.request_id.decode(errors="replace"),
                times=times,
            )
        )
    return answers


@dataclass
class MockServer:
    """A running server; its log is complete once it has been stopped."""

    folder: Path
    """For the program and the log."""
    ttft_ms: float = 50
    itl_ms: float = 10
    unlimited: bool = False
    """Wait for nothing."""
    model: str = "mock-model"
    core: int | None = None
    """The processor core that it is pinned to."""
    options: Sequence[str] = ()
    """More options of the program, such as ("--stall", "800,2")."""
    report: dict[str, Any] = field(default_factory=dict)
    """What the server said of itself at the end: requests, tokens, cpu_s, idle_share, stalls."""
    _process: "subprocess.Popen[str] | None" = None
    _port: int = 0

    def __enter__(self) -> Self:
        command = [str(build(self.folder)), "--ttft-ms", str(self.ttft_ms), "--itl-ms", str(self.itl_ms)]
        command += ["--model", self.model, "--log", str(self.folder / "truth.log"), *self.options]
        command += ["--unlimited"] * self.unlimited
        if self.core is not None:
            command = ["taskset", "-c", str(self.core), *command]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("listening "), f"the mock server did not start: {command}"
        self._port = int(line.split()[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """On 127.0.0.1."""
        return self._port

    @property
    def url(self) -> str:
        """Without /v1."""
        return f"http://127.0.0.1:{self._port}"

    def stop(self) -> None:
        """End it and read its report."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        output, _ = self._process.communicate(timeout=30)
        self._process = None
        self.report = json.loads(output.splitlines()[-1])

    def log(self) -> list[Answer]:
        """What it answered; after its end."""
        assert self._process is None, "the log is written at the end"
        return read_log(self.folder / "truth.log")


def main() -> None:
    """Serve in this process's place."""
    program = build(Path(os.environ.get("ORCH_HOME") or Path.home() / ".orch") / "bin")
    os.execv(program, [str(program), *sys.argv[1:]])


if __name__ == "__main__":
    main()
