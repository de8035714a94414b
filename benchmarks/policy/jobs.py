"""Jobs to simulate: from a trace file in one of several layouts, or synthetic; each with a noisy estimate."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from orchestrator.scheduler.tables import Cluster
from orchestrator.scheduler.values import ANY, WHOLE, Demand, Node

COLUMNS = {
    "submitted": ("submitted", "submit_time", "creation_time", "submitted_time", "arrival_time", "submit"),
    "started": ("scheduled_time", "start_time", "started"),
    "ended": ("deletion_time", "end_time", "ended"),
    "seconds": ("seconds", "duration", "runtime", "run_time", "duration_s"),
    "gpus": ("num_gpu", "gpu_num", "gpus", "num_gpus", "gpu", "worker_gpus", "requested_gpus"),
    "milli": ("gpu_milli",),
    "cpu_milli": ("cpu_milli",),
    "cpus": ("cpu_num", "cpus", "num_cpus"),
    "memory_mib": ("memory_mib",),
    "user": ("user", "user_id", "tenant", "team", "vc", "qos"),
    "kinds": ("gpu_spec", "gpu_type", "accelerator"),
}
"""What a column may be called; the first that a file has counts."""
LONGEST = 2 * 86400.0
"""Jobs of the openb trace that last longer are left out: a few services of up to 101 days would be most of its work."""


@dataclass(frozen=True)
class Job:
    """What is submitted, and how long it really takes."""

    id: str
    submitted: float
    seconds: float
    demand: Demand
    estimate: float
    user: str = ""
    kinds: tuple[str, ...] = (ANY,)


@dataclass(frozen=True)
class Workload:
    """A cluster and what is submitted to it."""

    name: str
    nodes: tuple[Node, ...]
    jobs: tuple[Job, ...]

    @property
    def gpus(self) -> int:
        """GPUs of the cluster."""
        return sum(len(node.free) for node in self.nodes)


def read_nodes(path: Path, every: int = 1) -> tuple[Node, ...]:
    """Every so many nodes of a list with the columns sn, cpu_milli, memory_mib, gpu, model."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))[::every]
    return tuple(
        Node(row["sn"], row["model"], (WHOLE,) * int(row["gpu"]), int(row["cpu_milli"]) / 1000, _mib(row["memory_mib"]))
        for row in rows
    )


def nodes(gpus: int, kind: str = "gpu") -> tuple[Node, ...]:
    """A cluster of 8-GPU nodes."""
    return tuple(Node(f"n{i:04}", kind, (WHOLE,) * 8) for i in range(math.ceil(gpus / 8)))


def read_jobs(path: Path, longest: float = LONGEST) -> list[Job]:
    """The jobs of a CSV with a column for submission, GPUs, and duration or start and end; others are optional."""
    with path.open(newline="") as file:
        found = [job for i, row in enumerate(csv.DictReader(file)) if (job := _job(i, row)) is not None]
    if not found:
        raise SystemExit(f"{path} holds no job; it needs columns for {', '.join(COLUMNS)}: see COLUMNS in {__file__}")
    return sorted((job for job in found if job.seconds <= longest), key=lambda job: job.submitted)


def _job(number: int, row: dict[str, str]) -> Job | None:
    cells = {name: next((row[c] for c in columns if row.get(c)), "") for name, columns in COLUMNS.items()}
    submitted = _time(cells["submitted"])
    begun = _time(cells["started"]) or submitted
    seconds = float(cells["seconds"]) if cells["seconds"] else _time(cells["ended"]) - begun
    if not seconds > 0 or math.isnan(submitted):
        return None
    kinds = tuple(kind for kind in cells["kinds"].split("|") if kind) or (ANY,)
    demand = _demand(cells)
    return Job(f"job-{number}", submitted, max(seconds, 1.0), demand, seconds, cells["user"], kinds)


def _demand(cells: dict[str, str]) -> Demand:
    gpus = round(float(cells["gpus"] or 0))
    milli = int(float(cells["milli"] or WHOLE)) if gpus == 1 else WHOLE
    cpus = float(cells["cpu_milli"] or 0) / 1000  # cpu_num of other traces counts a whole job's, and is left out
    return gang(gpus, max(milli, 1), cpus, _mib(cells["memory_mib"] or "0"))


def gang(gpus: int, milli: int = WHOLE, cpus: float = 0.0, memory: float = 0.0, node: int = 8) -> Demand:
    """So many GPUs as equal bundles that fit into a node, as few as there can be."""
    if gpus <= node:
        return Demand(gpus, milli, cpus, memory)
    bundles = next(b for b in range(math.ceil(gpus / node), gpus + 1) if gpus % b == 0)
    return Demand(gpus // bundles, milli, cpus / bundles, memory / bundles, bundles)


def _time(cell: str) -> float:
    try:
        return float(cell) if cell else math.nan
    except ValueError:
        return float(np.datetime64(cell.strip().replace(" ", "T").removesuffix("Z"), "s").astype(float))


def _mib(cell: str) -> float:
    return float(cell) * 2**20


def compressed(name: str, jobs: list[Job], cluster: tuple[Node, ...], load: float, seed: int, count: int) -> Workload:
    """`count` of the jobs, drawn in their order, with the time between them scaled so that they offer this load.

    Jobs that no node of a smaller cluster can hold are left out.

    Offered load is their GPU-seconds over what the cluster has from the first submission to the last.
    """
    rng = np.random.default_rng(seed)
    jobs = [job for job in jobs if fits(job.demand, cluster)]
    chosen = [jobs[i] for i in np.sort(rng.choice(len(jobs), min(count, len(jobs)), replace=False))]
    work = sum(job.seconds * job.demand.size for job in chosen if job.demand.gpus)
    span = chosen[-1].submitted - chosen[0].submitted
    scale = work / (load * sum(len(node.free) for node in cluster)) / max(span, 1.0)
    moved = (replace(job, submitted=(job.submitted - chosen[0].submitted) * scale) for job in chosen)
    return Workload(name, cluster, tuple(moved))


def fits(demand: Demand, cluster: tuple[Node, ...]) -> bool:
    """Whether the idle cluster holds the gang."""
    return int(Cluster(cluster).slots(demand, np.ones(len(cluster), bool)).sum()) >= demand.bundles


def synthetic(name: str, gpus: int, load: float, seed: int, count: int) -> Workload:
    """Gangs of up to 64 GPUs, log-normal run times of minutes to days, twelve users, by day and by week uneven."""
    rng = np.random.default_rng(seed)
    sizes = rng.choice([1, 2, 4, 8, 16, 32, 64], count, p=[0.45, 0.14, 0.14, 0.15, 0.07, 0.035, 0.015])
    seconds = np.clip(rng.lognormal(math.log(9000), 1.7, count), 60, 6 * 86400)
    span = float((sizes * seconds).sum()) / (gpus * load)
    times = rng.uniform(0, span, count)
    for period, depth in ((86400.0, 0.4), (7 * 86400.0, 0.6)):
        times = times + depth * period / (2 * math.pi) * np.sin(2 * math.pi * times / period)
    users = rng.zipf(1.6, count) % 12
    order = np.argsort(times)
    jobs = [
        Job(f"job-{i}", max(float(times[i]), 0.0), float(seconds[i]), gang(int(sizes[i])), 0.0, f"user-{users[i]}")
        for i in order
    ]
    return Workload(name, nodes(gpus), tuple(sorted(jobs, key=lambda job: job.submitted)))


def with_noise(workload: Workload, sigma: float, seed: int) -> Workload:
    """The same with estimates that are off by a log-normal factor of this sigma, median 1."""
    factors = np.random.default_rng(1000 + seed).lognormal(0.0, sigma, len(workload.jobs))
    jobs = (replace(job, estimate=job.seconds * float(f)) for job, f in zip(workload.jobs, factors, strict=True))
    return replace(workload, jobs=tuple(jobs))


def fill(jobs: list[Job], gpus: int, seed: int) -> Iterator[Job]:
    """Jobs drawn again and again until they ask for all GPUs of the cluster (ATC'23, section 6)."""
    rng, asked = np.random.default_rng(seed), 0.0
    number = 0
    while asked < gpus:
        job = jobs[int(rng.integers(len(jobs)))]
        asked += job.demand.size if job.demand.gpus else 0.0
        number += 1
        yield replace(job, id=f"fill-{number}")
