"""What a simulated policy did for those who waited, and for the cluster."""

import math
from collections import defaultdict

import numpy as np
from simulate import Life, Result

SHORT = 600.0
"""Seconds: the slowdown of a shorter job counts as if it took so long (bounded slowdown)."""


def measure(result: Result) -> dict[str, float]:
    """Times in hours; shares 0..1. A wait is all the time between submission and end in which the job did not run."""
    lives = result.lives
    jct = np.array([life.ended - life.job.submitted for life in lives])
    seconds = np.array([life.job.seconds for life in lives])
    last = result.workload.jobs[-1].submitted
    return {
        "mean_jct_h": jct.mean() / 3600,
        "p99_jct_h": float(np.percentile(jct, 99)) / 3600,
        "mean_wait_h": (jct - seconds).mean() / 3600,
        "p99_wait_h": float(np.percentile(jct - seconds, 99)) / 3600,
        "max_wait_h": float((jct - seconds).max()) / 3600,
        "makespan_h": result.makespan / 3600,
        "allocation": result.used / (result.workload.gpus * last),
        "worst_user_slowdown": worst_user(lives),
        "preemptions": float(sum(life.preemptions for life in lives)),
        "lost_gpu_h": math.fsum(life.lost for life in lives) / 3600,
        "decision_ms_mean": float(np.mean(result.decisions)) * 1000,
    }


def worst_user(lives: list[Life]) -> float:
    """The highest mean bounded slowdown that a user with at least ten jobs sees."""
    slowdowns: dict[str, list[float]] = defaultdict(list)
    for life in lives:
        jct, seconds = life.ended - life.job.submitted, life.job.seconds
        slowdowns[life.job.user].append(max(jct / max(seconds, SHORT), 1.0))
    enough = [values for values in slowdowns.values() if len(values) >= 10] or list(slowdowns.values())
    return max(math.fsum(values) / len(values) for values in enough)
