"""Runs a load: starts the client processes, lets them begin together, follows them, and puts their records together."""

import contextlib
import dataclasses
import json
import secrets
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from orchestrator.errors import InfrastructureError, InputError
from orchestrator.loadgen import records, requests
from orchestrator.loadgen.load import Load, Measurement, Progress, WorkerReport
from orchestrator.loadgen.record import Record
from orchestrator.loadgen.records import load_records, save_records
from orchestrator.loadgen.requests import NONCE, Request
from orchestrator.loadgen.schedule import INDEX_DIGITS, SECOND

__all__ = ["load_records", "measure", "save_records"]

_LEAD_NS = 2_000_000
"""Between `go` and the start: long enough for every worker to have read it."""
_LOOK_S = 0.1
BUSY = 0.9
"""A client process that uses more of a core than this is the limit itself."""
LATE_S = 0.005
"""So is one that leaves received bytes, or due requests, waiting for longer than this (99th percentile)."""


def measure(
    load: Load,
    workload: Iterable[Request],
    *,
    directory: Path | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Measurement:
    """Run the load to its end, or until `stop` says so (what is in flight then is not recorded).

    Working files are made in `directory`, default a temporary one; records of a measurement that breaks stay there.
    Raises InputError for a load that cannot be run, InfrastructureError when a client process dies.
    """
    with contextlib.ExitStack() as stack:
        folder = directory or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orch-load-")))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "requests"
        stack.callback(path.unlink, missing_ok=True)
        count = requests.write(path, workload)
        if count == 0:
            raise InputError("the workload holds no request", next_step="look at its filters and its limit")
        first = next(requests.read(path))
        if first.at is None and load.concurrency is None:
            raise InputError("a load without arrival times needs a concurrency")
        return _Drive(load, path, count, first.at is not None, on_progress, stop).run(folder)


class _Drive:
    def __init__(
        self,
        load: Load,
        path: Path,
        count: int,
        open_loop: bool,
        on_progress: Callable[[Progress], None],
        stop: Callable[[], bool],
    ) -> None:
        if load.concurrency is not None and load.workers > load.concurrency:
            load = dataclasses.replace(load, workers=load.concurrency)
        self._load, self._path, self._count, self._open = load, path, count, open_loop
        self._on_progress, self._stop = on_progress, stop
        self._lines: dict[int, dict[str, Any]] = {}
        """The latest line of each worker."""

    def run(self, folder: Path) -> Measurement:
        parts = urlsplit(self._load.url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        portable = _portable(self._load.url)
        try:
            address = None if portable else _address(host, port)
        except OSError as error:
            return self._unresolved(f"{host}: {error.strerror or error}")
        plan = {
            "load": dataclasses.asdict(self._load),
            "requests": str(self._path),
            "run": f"{secrets.randbelow(10 ** (len(NONCE) - INDEX_DIGITS)):0{len(NONCE) - INDEX_DIGITS}d}",
            "portable": portable,
            "address": address,
            "host": parts.netloc.rpartition("@")[2],
        }
        files = [folder / f"worker-{worker}.records" for worker in range(self._load.workers)]
        processes = [self._start(plan, worker, file) for worker, file in enumerate(files)]
        try:
            ahead = time.time_ns() - time.monotonic_ns()
            begun = self._go(processes)
            self._follow(processes, begun)
            step = time.time_ns() - time.monotonic_ns() - ahead
        finally:
            for process in processes:
                process.kill()
                process.communicate()
        return self._measurement(files, begun, step / SECOND)

    def _start(self, plan: Mapping[str, Any], worker: int, file: Path) -> "subprocess.Popen[bytes]":
        concurrency, workers = self._load.concurrency, self._load.workers
        streams = None if concurrency is None else concurrency // workers + (worker < concurrency % workers)
        process = subprocess.Popen(  # ends by itself when we die: its stdin ends
            [sys.executable, "-m", "orchestrator.loadgen.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is ours to handle
        )
        assert process.stdin is not None, "it was asked for"
        process.stdin.write(json.dumps({**plan, "worker": worker, "streams": streams, "records": str(file)}).encode())
        process.stdin.write(b"\n")
        process.stdin.flush()
        return process

    def _go(self, processes: Sequence["subprocess.Popen[bytes]"]) -> int:
        for process in processes:
            assert process.stdout is not None, "it was asked for"
            if process.stdout.readline() != b"ready\n":
                raise InfrastructureError("a client process of the load generator ended before it began")
        start = time.time_ns() + _LEAD_NS
        for process in processes:
            assert process.stdin is not None, "it was asked for"
            process.stdin.write(b"go %d\n" % start)
            process.stdin.flush()
        return start

    def _follow(self, processes: Sequence["subprocess.Popen[bytes]"], begun: int) -> None:
        """Read what the workers tell until all have reported."""
        stopping = False
        with selectors.DefaultSelector() as selector:
            for worker, process in enumerate(processes):
                selector.register(process.stdout, selectors.EVENT_READ, worker)  # type: ignore[arg-type]
            while selector.get_map():
                for key, _ in selector.select(_LOOK_S):
                    line = key.fileobj.readline()  # type: ignore[union-attr]
                    if line:
                        self._lines[key.data] = json.loads(line)
                    if not line or "report" in self._lines[key.data]:
                        selector.unregister(key.fileobj)
                    if not line and "report" not in self._lines.get(key.data, {}):
                        raise InfrastructureError(
                            f"client process {key.data} of the load generator died; its records are kept"
                        )
                    self._on_progress(self._progress(begun))
                if not stopping and self._stop():
                    stopping = True
                    for process in processes:
                        process.stdin.write(b"stop\n")  # type: ignore[union-attr]
                        process.stdin.flush()  # type: ignore[union-attr]

    def _progress(self, begun: int) -> Progress:
        lines = list(self._lines.values())
        since = min((line["since"] for line in lines if line["since"]), default=None)
        ended, in_flight = sum(line["ended"] for line in lines), sum(line["in_flight"] for line in lines)
        sending = any(line["sending"] for line in lines)
        now = max(line["now"] for line in lines)
        return Progress(
            elapsed_s=max(0.0, (now - (since or begun)) / SECOND),
            phase="warm-up" if since is None else "measuring" if sending else "draining",
            sent=ended + in_flight,
            ended=ended,
            errors=dict(sum((Counter(line["errors"]) for line in lines), Counter[str]())),
            in_flight=in_flight,
            completion_tokens=sum(line["tokens"] for line in lines),
            total=self._count if self._open else self._load.num_requests,
            recent_ttft_s=[value for line in lines for value in line["ttft"]],
            recent_itl_s=[value for line in lines for value in line["itl"]],
        )

    def _measurement(self, files: Sequence[Path], begun: int, step_s: float) -> Measurement:
        found = [record for file in files for record in records.read(file)]
        for file in files:
            file.unlink()
        found.sort(key=lambda record: record.ended)
        lines = list(self._lines.values())
        workers = [WorkerReport(**line["report"]) for line in lines]
        now = max(line["now"] for line in lines)
        start = min((line["since"] for line in lines if line["since"]), default=begun)
        idle = min(line["idle_since"] or now for line in lines)
        last = max((record.sent for record in found), default=start)
        return Measurement(
            records=found,
            start=start,
            end=max(start, last if self._open else idle),
            workers=workers,
            client_limited=any(_limited(worker) for worker in workers),
            clock_step_s=step_s,
        )

    def _unresolved(self, said: str) -> Measurement:
        """Every request fails alike when the host has no address."""
        now = time.time_ns()
        count = self._count if self._open else self._load.num_requests or self._count
        failed = [Record(i, -1, now, now, now, error="dns", detail=said) for i in range(count)]
        nobody = WorkerReport(0.0, 0.0, 0.0, 0.0, kernel_timestamps=False, peak_memory=0)
        return Measurement(failed, start=now, end=now, workers=[nobody], client_limited=False)


def _limited(worker: WorkerReport) -> bool:
    return worker.cpu_share > BUSY or worker.lag_p99_s > LATE_S or worker.send_late_p99_s > LATE_S


def _portable(url: str) -> bool:
    """Whether the URL needs more than plain HTTP/1.1: TLS, or a proxy."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "http" and (host in ("localhost", "::1") or host.startswith("127.")):
        return False  # as for the questions before (loadgen/api.py): no proxy reaches our own loopback
    return parts.scheme != "http" or ("http" in getproxies() and not proxy_bypass(host))


def _address(host: str, port: int) -> tuple[int, tuple[Any, ...]]:
    """The first of the host's addresses that takes a connection; the first one when none does. OSError without any."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for family, kind, protocol, _, address in found if len(found) > 1 else ():
        with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as probe:
            probe.settimeout(1)
            probe.connect(address)
            return family, address
    return found[0][0], found[0][4]
