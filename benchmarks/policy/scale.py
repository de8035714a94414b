"""How long a decision takes with 10,000 queued runs and 10,000 GPUs; see `measure`."""

import math
import os
import resource
import time
from dataclasses import replace

import numpy as np
from jobs import gang

from orchestrator.scheduler.policy import decide
from orchestrator.scheduler.series import Series
from orchestrator.scheduler.values import WHOLE, Node, Option, Quota, Run, Running, State

KINDS = ("H100", "A100", "MI300X")
SIZES, WEIGHTS = (1, 2, 4, 8, 16, 32, 64), (0.45, 0.14, 0.14, 0.15, 0.07, 0.035, 0.015)


class Busy:
    """A full cluster with a long queue, in which something ends and something comes before every decision."""

    def __init__(self, queued: int, gpus: int, seed: int, checkpointable: bool) -> None:
        self.rng, self.checkpointable = np.random.default_rng(seed), checkpointable
        self.count, self.now = 0, 0.0
        names = [(f"n{i:05}", KINDS[i % 3]) for i in range(math.ceil(gpus / 8))]
        self.nodes = Series(Node(name, kind, (WHOLE,) * 8, 96.0, 1e12) for name, kind in names)
        self.row = {name: row for row, (name, _) in enumerate(names)}
        self.quotas = {f"team-{i}": Quota(gpus / 25, gpus / 10) for i in range(20)}
        self.queued = Series(self.waited(self.run()) for _ in range(queued))
        self.running = Series[Running]()

    def run(self) -> Run:
        """A new run: its size, what it accepts and how long it takes."""
        self.count += 1
        rng, demand = self.rng, gang(int(self.rng.choice(SIZES, p=WEIGHTS)))
        if demand.size == 1 and rng.random() < 0.2:
            demand = replace(demand, milli=int(rng.choice([250, 500, 750])))
        demand = replace(demand, cpus=float(4 * demand.gpus), memory=1e10 * demand.gpus)
        seconds = float(rng.lognormal(9.0, 1.5))
        kinds = KINDS if rng.random() < 0.6 else (KINDS[int(rng.integers(3))],)
        options = tuple(Option(kind, seconds * (1 + 0.5 * KINDS.index(kind)), seconds) for kind in kinds)
        return Run(
            f"run-{self.count}",
            demand,
            options,
            f"team-{rng.integers(20)}",
            submitted=self.now,
            waiting_since=self.now,
            priority=int(rng.random() < 0.05),
            checkpointable=self.checkpointable,
        )

    def waited(self, run: Run) -> Run:
        """The same, some hours to two days in the queue already: some have the right to a reservation."""
        return replace(run, waiting_since=float(-self.rng.uniform(0, 2 * 86400)))

    def step(self) -> tuple[float, int]:
        """(wall seconds of one decision, its starts); carried out at once, with victims gone at once."""
        begun, worked = time.perf_counter(), time.process_time()
        plan = decide(State(self.now, self.nodes, self.queued, self.running, self.quotas))
        seconds, self.cpu = time.perf_counter() - begun, time.process_time() - worked
        stopped = [self.entry(preemption.run) for preemption in plan.preemptions]
        runs = {run.id: run for run in self.queued} if plan.starts else {}
        placed = [(runs[start.run], start.placements) for start in plan.starts]
        begun = time.perf_counter()
        started = [Running(run, places, self.now, self.now + run.seconds, self.now) for run, places in placed]
        back = [replace(e.run, preemptions=e.run.preemptions + 1, waiting_since=self.now) for e in stopped]
        self.queued = self.queued.changed(remove=[run.id for run, _ in placed], put=back)
        self.running = self.running.changed(remove=[entry.key for entry in stopped], put=started)
        self.occupy(stopped, -1)
        self.occupy(started, 1)
        self.update = time.perf_counter() - begun
        return seconds, len(plan.starts)

    def entry(self, name: str) -> Running:
        """A running run by its name."""
        return next(entry for entry in self.running if entry.key == name)

    def occupy(self, entries: list[Running], sign: int) -> None:
        """Change what is free on their nodes."""
        for entry in entries:
            for place in entry.placements:
                node, demand = self.nodes[self.row[place.node]], entry.run.demand
                free = [f - sign * demand.milli * (gpu in place.gpus) for gpu, f in enumerate(node.free)]
                cpus, memory = node.cpus - sign * demand.cpus, node.memory - sign * demand.memory
                self.nodes = self.nodes.changed(put=[replace(node, free=tuple(free), cpus=cpus, memory=memory)])

    def event(self) -> None:
        """The next run ends, and a new one comes."""
        entry = min(self.running, key=lambda entry: entry.ends)
        self.now = max(self.now, entry.ends)
        self.running = self.running.changed(remove=[entry.key])
        self.occupy([entry], -1)
        self.queued = self.queued.changed(put=[self.run()])


def measure(queued: int = 10_000, gpus: int = 10_000, decisions: int = 500, checkpointable: bool = True) -> dict:
    """Milliseconds of a decision when the cluster is full, one event before each; and of those that filled it."""
    busy = Busy(queued, gpus, 0, checkpointable)
    filling = []
    while not filling or filling[-1][1] >= 64:
        filling.append(busy.step())
        busy.queued = busy.queued.changed(put=[busy.run() for _ in range(queued - len(busy.queued))])
    steady, updates, work = [], [], []
    for _ in range(decisions):
        busy.event()
        steady.append(busy.step())
        updates.append(busy.update)
        work.append(1000 * busy.cpu)
    ms = np.array([seconds * 1000 for seconds, _ in steady])
    return {
        "queued": len(busy.queued),
        "gpus": gpus,
        "running": len(busy.running),
        "decisions": decisions,
        "preemption": checkpointable,
        "mean_ms": float(ms.mean()),
        "p50_ms": float(np.percentile(ms, 50)),
        "p99_ms": float(np.percentile(ms, 99)),
        "max_ms": float(ms.max()),
        "cpu_mean_ms": float(np.mean(work)),
        "cpu_p99_ms": float(np.percentile(work, 99)),
        "load_average": os.getloadavg()[0],
        "update_mean_ms": float(np.mean(updates)) * 1000,
        "fill_64_starts_p99_ms": float(np.percentile([seconds * 1000 for seconds, _ in filling], 99)),
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
