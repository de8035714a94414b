"""A discrete-event simulation of a cluster that a policy drives: `simulate(workload, policy) -> Result`.

A policy is any function from `State` to `Plan`. A run that is preempted saves for a while with its GPUs held, waits in
the queue, and when it starts again loads for a while; both are counted as lost. A start `after` others holds its places
from the decision on, which is negative free capacity until they have gone.
"""

import heapq
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from jobs import Job, Workload

from orchestrator.scheduler.decisions import Plan, Preempt, Start
from orchestrator.scheduler.values import Option, Run, Running, State

SAVE, LOAD = 60.0, 120.0
"""Seconds that a checkpoint and a resumption take."""
EVERY = 1800.0
"""Seconds between the checkpoints that a run makes anyway."""
Policy = Callable[[State], Plan]


@dataclass
class Life:
    """What has become of a job."""

    job: Job
    done: float = 0.0
    """Seconds of its work that are saved or under way."""
    began: float = math.nan
    """When the work that is under way began."""
    started: float = math.nan
    ended: float = math.nan
    preemptions: int = 0
    lost: float = 0.0
    """GPU-seconds spent on saving and loading."""
    epoch: int = 0
    """Events of an earlier attempt are stale."""
    after: set[str] = field(default_factory=set)
    """Runs that must go before this one starts."""


@dataclass
class Result:
    """All lives, and what the cluster did."""

    workload: Workload
    lives: list[Life]
    makespan: float
    used: float
    """GPU-seconds in use until the last submission."""
    decisions: list[float]
    """Wall seconds of each decision."""


class Simulation:
    """The cluster, its queue and the events to come."""

    def __init__(self, workload: Workload, policy: Policy, checkpointable: bool) -> None:
        self.workload, self.policy, self.checkpointable = workload, policy, checkpointable
        self.lives = {job.id: Life(job) for job in workload.jobs}
        self.nodes = {node.name: node for node in workload.nodes}
        self.queued: dict[str, Run] = {}
        self.running: dict[str, Running] = {}
        self.count = itertools.count()
        self.events = [(job.submitted, next(self.count), "come", job.id, 0) for job in workload.jobs]
        heapq.heapify(self.events)
        self.now = self.busy = self.used = 0.0
        self.decisions: list[float] = []

    def run(self) -> Result:
        """Until everything has ended."""
        last = self.workload.jobs[-1].submitted
        while self.events:
            moment = self.events[0][0]
            self.used += self.busy * max(min(moment, last) - min(self.now, last), 0.0)
            self.now = moment
            changed = False
            while self.events and self.events[0][0] <= moment:
                _, _, kind, name, epoch = heapq.heappop(self.events)
                if epoch == self.lives[name].epoch:
                    getattr(self, f"_{kind}")(name)
                    changed |= kind != "save"
            if changed:
                self._decide()
        assert not self.queued, f"{len(self.queued)} runs never started, such as {next(iter(self.queued.values()))}"
        return Result(self.workload, list(self.lives.values()), self.now, self.used, self.decisions)

    def _decide(self) -> None:
        while self.queued:
            state = State(
                self.now, tuple(self.nodes.values()), tuple(self.queued.values()), tuple(self.running.values())
            )
            begun = time.perf_counter()
            plan = self.policy(state)
            self.decisions.append(time.perf_counter() - begun)
            for preemption in plan.preemptions:
                self._preempt(preemption)
            for start in plan.starts:
                self._place(start)
            if not plan.more:
                return

    def _come(self, name: str) -> None:
        life = self.lives[name]
        job, left = life.job, life.job.estimate - life.done
        left = max(left, 0.1 * job.estimate if life.done < job.estimate else 0.5 * life.done, 1.0)
        self.queued[name] = Run(
            name,
            job.demand,
            tuple(Option(kind, left) for kind in job.kinds),
            team=job.user,
            submitted=job.submitted,
            waiting_since=self.now,
            preemptions=life.preemptions,
            checkpointable=self.checkpointable,
        )

    def _place(self, start: Start) -> None:
        run, life = self.queued.pop(start.run), self.lives[start.run]
        life.after = set(start.after)
        self._occupy(run, start, 1)
        self.running[run.id] = Running(run, start.placements, math.inf, self.now + run.seconds)
        if not life.after:
            self._begin(run.id)

    def _begin(self, name: str) -> None:
        entry, life = self.running[name], self.lives[name]
        load = LOAD if life.preemptions else 0.0
        life.lost += load * entry.run.demand.size
        life.began = self.now + load
        life.started = self.now if math.isnan(life.started) else life.started
        self.running[name] = replace(entry, started=self.now, ends=self.now + load + entry.run.seconds, saved=self.now)
        self._push(load + life.job.seconds - life.done, "end", name)
        if self.checkpointable:
            self._push(load + EVERY, "save", name)

    def _save(self, name: str) -> None:
        self.running[name] = replace(self.running[name], saved=self.now)
        self._push(EVERY, "save", name)

    def _preempt(self, preemption: Preempt) -> None:
        entry, life = self.running[preemption.run], self.lives[preemption.run]
        assert not entry.yielding, f"{preemption.run} yields already"
        life.done += max(self.now - life.began, 0.0)
        life.preemptions += 1
        life.lost += SAVE * entry.run.demand.size
        life.epoch += 1
        self.running[preemption.run] = replace(entry, yielding=True)
        self._push(SAVE, "gone", preemption.run)

    def _gone(self, name: str) -> None:
        self._free(name)
        self._come(name)
        for other in [self.lives[running] for running in self.running]:
            if name in other.after:
                other.after.remove(name)
                if not other.after:
                    self._begin(other.job.id)

    def _end(self, name: str) -> None:
        self._free(name)
        self.lives[name].ended = self.now
        self.lives[name].epoch += 1

    def _free(self, name: str) -> None:
        entry = self.running.pop(name)
        self._occupy(entry.run, entry, -1)

    def _push(self, delay: float, kind: str, name: str) -> None:
        heapq.heappush(self.events, (self.now + delay, next(self.count), kind, name, self.lives[name].epoch))

    def _occupy(self, run: Run, placed: Start | Running, sign: int) -> None:
        demand = run.demand
        for place in placed.placements:
            node = self.nodes[place.node]
            free = list(node.free)
            for gpu in place.gpus:
                free[gpu] -= sign * demand.milli
            cpus, memory = node.cpus - sign * demand.cpus, node.memory - sign * demand.memory
            self.nodes[place.node] = replace(node, free=tuple(free), cpus=cpus, memory=memory)
            if isinstance(placed, Start) and not placed.after:
                enough = cpus > -1e-3 and memory > -1e3 and all(free[gpu] >= 0 for gpu in place.gpus)
                assert enough, f"{placed} does not fit on {node}"
        self.busy += sign * demand.size if demand.gpus else 0.0


def simulate(workload: Workload, policy: Policy, checkpointable: bool = True) -> Result:
    """Run a workload to its end. AssertionError when the policy places what does not fit, or starves a run."""
    return Simulation(workload, policy, checkpointable).run()
