"""Quotas by team with borrowing: what a team does not use others may, until it wants it back (Kueue's cohorts)."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.scheduler.tables import Bools, Floats
from orchestrator.scheduler.values import Quota, Run, Running

_NOTHING = Quota(0.0)


class Usage:
    """GPUs that each team holds, kept up to date while a decision is made; a run that yields has given its own back."""

    def __init__(self, quotas: Mapping[str, Quota], running: Sequence[Running]) -> None:
        self.quotas = quotas
        self.held: dict[str, float] = {}
        if quotas:
            for entry in running:
                self.add(entry.run, 0.0 if entry.yielding else 1.0)

    def add(self, run: Run, times: float = 1.0) -> None:
        """Count a run that starts, or with -1 one that yields."""
        self.held[run.team] = self.held.get(run.team, 0.0) + times * run.demand.size

    def owns(self, run: Run) -> bool:
        """Whether the run would stay within its team's own GPUs."""
        quota = self.quotas.get(run.team, _NOTHING)
        return not self.quotas or self.held.get(run.team, 0.0) + run.demand.size <= quota.gpus + 1e-9

    def may(self, run: Run) -> bool:
        """Whether the team may hold the run besides what it holds."""
        quota = self.quotas.get(run.team, _NOTHING)
        return not self.quotas or self.held.get(run.team, 0.0) + run.demand.size <= quota.gpus + quota.borrow + 1e-9

    def levels(self, queued: Sequence[Run]) -> Floats:
        """0 for a run within its team's quota, else GPUs held for each owned one: who has least goes first."""
        if not self.quotas:
            return np.zeros(len(queued))
        share = {
            team: 1e-6 + self.held.get(team, 0.0) / max(self.quotas.get(team, _NOTHING).gpus, 1.0)
            for team in {run.team for run in queued}
        }
        return np.array([0.0 if self.owns(run) else share[run.team] for run in queued])

    def borrowers(self, running: Sequence[Running]) -> Bools:
        """Which runs a team holds beyond its quota: its newest ones."""
        found = np.zeros(len(running), bool)
        over = {team: held - self.quotas.get(team, _NOTHING).gpus for team, held in self.held.items()}
        for row in sorted(range(len(running)), key=lambda row: -running[row].started) if self.quotas else ():
            entry = running[row]
            if not entry.yielding and over.get(entry.run.team, 0.0) > 1e-9:
                found[row] = True
                over[entry.run.team] -= entry.run.demand.size
        return found

    def words(self, run: Run) -> str:
        """Why the team may not hold the run."""
        quota, held = self.quotas.get(run.team, _NOTHING), self.held.get(run.team, 0.0)
        borrowed = "" if math.isinf(quota.borrow) else f" and may borrow {quota.borrow:g}"
        return f"team {run.team} holds {held:g} GPUs, owns {quota.gpus:g}{borrowed}; this run needs {run.demand.size:g}"
