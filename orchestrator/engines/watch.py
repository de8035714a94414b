"""Whether a running engine still works: its process, its log, and one token of it now and then.

    watch = Watch(served)
    while (trouble := watch.trouble()) is None:
        ...  # asked every few hundred milliseconds; never waits

A process that lives and a /health of 200 prove nothing: kernels die under a server that goes on answering, and a
stopped process holds its port. The probe is a real request. An engine that is merely busy answers it late, so a probe
that is not answered in time counts only if the engine's own counters stand still, too: tokens, steps, or the CPU time
of an engine that shows no metrics and answers one request after another.
"""

import contextlib
import http.client
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from orchestrator import processes
from orchestrator.engines import client
from orchestrator.engines.client import Sampling
from orchestrator.engines.running import Running
from orchestrator.errors import EngineError
from orchestrator.loadgen.scrape import PATHS

PROBE_EVERY_S = 30.0
PROBE_TIMEOUT_S = 30.0
_METRICS_TIMEOUT_S = 5.0
_WORKING = 0.1
"""Share of a CPU that an engine without metrics uses at least while it generates."""


class Watch:
    """Of one engine; a probe runs in a thread of its own."""

    def __init__(
        self,
        served: Running,
        *,
        every_s: float = PROBE_EVERY_S,
        timeout_s: float = PROBE_TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.served, self._every_s, self._timeout_s, self._clock = served, every_s, timeout_s, clock
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="probe")
        self._probe: Future[str | None] | None = None
        self._due = clock() + every_s
        self._read = served.process.log.stat().st_size if served.process.log.exists() else 0

    def trouble(self) -> str | None:
        """Why the engine does not work any more; None: it does, as far as is known."""
        code = self.served.process.poll()
        if code is not None:
            return f"it died ({processes.died_of(code)})"
        if self.served.engine.diagnose(self._new_lines()):
            self._due = self._clock()  # its log tells of something that may have killed it: ask now
        return self._answer_of_probe()

    def _new_lines(self) -> str:
        """What the log has got since it was last read."""
        with contextlib.suppress(OSError), self.served.process.log.open("rb") as log:
            log.seek(self._read)
            found = log.read()
            self._read += len(found)
            return found.decode(errors="replace")
        return ""

    def _answer_of_probe(self) -> str | None:
        if self._probe is None and self._clock() >= self._due:
            self._probe = self._pool.submit(self._ask)
        if self._probe is None or not self._probe.done():
            return None
        trouble, self._probe, self._due = self._probe.result(), None, self._clock() + self._every_s
        return trouble

    def _ask(self) -> str | None:
        """One token, or the reason why there is none."""
        before = self._progress()
        try:
            self.served.chat([{"role": "user", "content": "Hello"}], Sampling(max_tokens=1), timeout_s=self._timeout_s)
        except EngineError as error:
            late = isinstance(error.__cause__, TimeoutError)
            if late and (now := self._progress()) is not None and now != before:
                return None  # it is busy with others' requests
            return f"it gives no token within {self._timeout_s:.0f} s" if late else error.message
        return None

    def _progress(self) -> float | None:
        """What grows while the engine works: tokens or steps by its own count, else the CPU time of a server that has
        no metrics, in parts of a probe's time that a request in the background does not use. None: it does not tell.
        """
        metricless = 0
        for path in PATHS:
            try:
                text = client.get_or_post(f"{client.root(self.served.url)}{path}", timeout_s=_METRICS_TIMEOUT_S)
            except client.StatusError:
                metricless += 1
                continue
            except (OSError, http.client.HTTPException):
                return None
            told = self.served.engine.parse_metrics(text)
            for count in (told.generated_tokens_total, told.steps_total):
                if count is not None:
                    return float(count)
        if metricless < len(PATHS):
            return None
        return self.served.process.cpu_seconds() // (_WORKING * self._timeout_s)

    def close(self) -> None:
        """Leave a probe that still waits to its time-out."""
        self._pool.shutdown(wait=False, cancel_futures=True)
