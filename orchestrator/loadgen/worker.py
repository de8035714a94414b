"""One client process: `python -m orchestrator.loadgen.worker` reads its part of a load as JSON from stdin and runs it.

On stdin: one line with the plan, one line `go NANOSECONDS` with the common start; the end of stdin, or anything more,
stops it. On stdout: `ready`, then a line of JSON ten times a second, the last one with `report`. Records go to a file.
Only the standard library is imported, so that it starts in some 50 ms.
"""

import contextlib
import json
import os
import resource
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from orchestrator.loadgen import records, requests
from orchestrator.loadgen.load import Load
from orchestrator.loadgen.loop import LAG_STEPS, Loop
from orchestrator.loadgen.record import Record, failure
from orchestrator.loadgen.schedule import SECOND, Schedule, sessions

_RECENT = 200
_SAMPLES = 100_000
_IN_MEMORY_BYTES = 8_000_000


class _Watch:
    """Writes the records, and what a live view needs to know."""

    def __init__(self, file: Any, out: TextIO, schedule: Schedule, *, free: bool) -> None:
        """`free`: nothing but this process delays a request, since no limit of streams holds it back."""
        self._file, self._out, self._schedule, self._free = file, out, schedule, free
        self._errors: Counter[str] = Counter()
        self._ended = self._sent_late = self._tokens = self._warm = 0
        self._ttft: deque[float] = deque(maxlen=_RECENT)
        self._itl: deque[float] = deque(maxlen=_RECENT)
        self.late: list[int] = []
        """sent - intended of requests that only this process can have delayed, ns."""
        self.cpu_at_start = time.process_time(), time.time_ns()
        """Use of the processor, and the time, when the warm-up was over."""
        self._warming = True

    def record(self, record: Record) -> None:
        """One request has ended."""
        records.append(self._file, record)
        if record.warmup:
            self._warm += 1
            return
        kind = failure(record)
        if kind is not None:
            self._errors[kind] += 1
        self._ended += 1
        self._tokens += record.completion_tokens or len(record.content)
        content = record.content
        if content:
            self._ttft.append((content[0] - record.intended) / SECOND)
        if len(content) > 1:
            self._itl.append((content[-1] - content[0]) / (len(content) - 1) / SECOND)
        if self._free:
            self.late.append(record.sent - record.intended)
            if len(self.late) > _SAMPLES:
                self.late = self.late[::2]

    def look(self, loop: Any, now: int) -> None:
        """Ten times a second: tell the parent, and remember the use of the processor since the warm-up."""
        if self._warming and self._schedule.measuring_since is not None:
            self._warming, self.cpu_at_start = False, (time.process_time(), now)
        self._file.flush()
        self.tell(in_flight=loop.in_flight, now=now)

    def tell(self, *, in_flight: int, now: int, report: Any = None) -> None:
        """One line to the parent."""
        line = {
            "now": now, "since": self._schedule.measuring_since, "idle_since": self._schedule.idle_since,
            "sending": self._schedule.sending, "ended": self._ended, "warm": self._warm, "errors": self._errors,
            "in_flight": in_flight, "tokens": self._tokens, "ttft": list(self._ttft), "itl": list(self._itl),
        }  # fmt: skip
        self._ttft.clear()
        self._itl.clear()
        if report is not None:
            line["report"] = report
        self._out.write(json.dumps(line) + "\n")
        self._out.flush()


def main() -> int:
    """0; the parent reads the outcome from stdout and the file."""
    stdin = os.fdopen(0, "rb", buffering=0, closefd=False)
    plan = json.loads(_line(stdin))
    load, worker = Load(**plan["load"]), plan["worker"]
    _allow_files()
    out = sys.stdout
    workload = _workload(plan["requests"])
    print("ready", file=out, flush=True)
    word, _, at = _line(stdin).partition(b" ")
    if word != b"go":
        return 0
    schedule = Schedule(
        sessions(workload, load, worker=worker),
        load,
        start=int(at),
        run=plan["run"].encode(),
        streams=plan["streams"],
    )
    with open(plan["records"], "wb") as file:
        watch = _Watch(file, out, schedule, free=plan["streams"] is None)
        loop = _loop(plan, load, schedule, watch)
        loop.run()
        now = time.time_ns()
        report = _report(loop, watch, now)
    watch.tell(in_flight=loop.in_flight, now=now, report=report)
    return 0


def _workload(path: str) -> Callable[[], Iterator[requests.Request]]:
    """What gives the requests from the first one on: from memory where that is little."""
    file = open(path, "rb")  # noqa: SIM115  for as long as this process lives
    if os.fstat(file.fileno()).st_size > _IN_MEMORY_BYTES:
        return lambda: requests.read_again(file)
    kept = list(requests.read_again(file))
    return lambda: iter(kept)


def _loop(plan: Any, load: Load, schedule: Schedule, watch: _Watch) -> Any:
    control: dict[str, Any] = {"control": 0, "on_control": lambda: True, "on_look": watch.look}
    if plan["portable"]:
        from orchestrator.loadgen.portable import PortableLoop

        return PortableLoop(load, schedule, watch.record, **control)
    family, address = plan["address"]
    return Loop(load, schedule, (family, tuple(address)), plan["host"], watch.record, **control)


def _report(loop: Any, watch: _Watch, now: int) -> dict[str, Any]:
    used, since = watch.cpu_at_start
    elapsed = (now - since) / SECOND
    late = sorted(watch.late)
    return {
        "cpu_share": (time.process_time() - used) / elapsed if elapsed > 0 else 0.0,
        "lag_p50_s": _lag(loop.lags, 0.50),
        "lag_p99_s": _lag(loop.lags, 0.99),
        "send_late_p99_s": late[int(len(late) * 0.99)] / SECOND if late else 0.0,
        "kernel_timestamps": loop.kernel_timestamps,
        "peak_memory": _peak_memory(),
    }


def _lag(steps: Any, share: float) -> float:
    """The percentile of a histogram in steps of 1,024 ns, s."""
    total, seen = sum(steps), 0
    for step in range(LAG_STEPS if total else 0):
        seen += steps[step]
        if seen >= share * total:
            return (step + 1) * 1024 / SECOND
    return 0.0


def _peak_memory() -> int:
    """Resident memory at its highest, bytes. Linux hands its parent's maximum to a new process, but not in VmHWM."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _allow_files() -> None:
    """A connection is a file; the soft limit of many systems is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _line(stdin: Any) -> bytes:
    """One line, and not a byte more: what follows is for the event loop."""
    line = bytearray()
    while (byte := stdin.read(1)) not in (b"\n", b""):
        line += byte
    return bytes(line)


def run() -> int:
    """`main`, which ends without a word when its parent has gone: nobody wants the outcome then."""
    try:
        return main()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still in stdout's buffer has a place to go at the exit
        return 1


if __name__ == "__main__":
    sys.exit(run())
