"""Quotas by team with borrowing: what a team does not use others may, until it wants it back (Kueue's cohorts)."""

import math
from collections.abc import Mapping

import numpy as np

from orchestrator.scheduler.tables import Bools, Floats, Table
from orchestrator.scheduler.values import Quota, Run, number_of

_NOTHING = Quota(0.0)
_ROUNDING = 1e-9


class Usage:
    """GPUs that each team holds, kept up to date while a decision is made; a run that yields has given its own back.

    It is told the tables of the queued (RUN) and the running runs (RUNNING). Without any quota everything is within it.
    """

    def __init__(self, quotas: Mapping[str, Quota], queued: Table, running: Table) -> None:
        self.quotas = {number_of(team): quota for team, quota in quotas.items()}
        teams, inverse = np.unique(running["team"], return_inverse=True)
        held = np.bincount(inverse, running["size"] * (running["yielding"] == 0), minlength=len(teams))
        self.held = dict(zip(teams.tolist(), held.tolist(), strict=True))
        self.teams, self.team = np.unique(queued["team"], return_inverse=True)
        """The teams that wait, and [queued] which of them a run is of."""
        self.size = np.ascontiguousarray(queued["size"])

    def add(self, run: Run, times: float = 1.0) -> None:
        """Count a run that starts, or with -1 one that yields."""
        team = number_of(run.team)
        self.held[team] = self.held.get(team, 0.0) + times * run.demand.size

    def owns(self, run: Run) -> bool:
        """Whether the run would stay within its team's own GPUs."""
        held, quota = self._of(number_of(run.team))
        return not self.quotas or held + run.demand.size <= quota.gpus + _ROUNDING

    def may(self, run: Run) -> bool:
        """Whether the team may hold the run besides what it holds."""
        held, quota = self._of(number_of(run.team))
        return not self.quotas or held + run.demand.size <= quota.gpus + quota.borrow + _ROUNDING

    def all_may(self) -> Bools:
        """[queued] the same for each of them."""
        if not self.quotas:
            return np.ones(len(self.size), bool)
        held, owned, borrowed = self._columns()
        return np.asarray(self.size <= (owned + borrowed - held + _ROUNDING)[self.team])

    def levels(self) -> Floats:
        """[queued] 0 for a run within its team's quota, else GPUs held for each owned one: who has least goes first."""
        if not self.quotas:
            return np.zeros(len(self.size))
        held, owned, _ = self._columns()
        share = 1e-6 + held / np.maximum(owned, 1.0)
        return np.where(self.size <= (owned - held + _ROUNDING)[self.team], 0.0, share[self.team])

    def borrowers(self, running: Table) -> Bools:
        """[running] which runs a team holds beyond its quota: its newest ones."""
        found = np.zeros(len(running), bool)
        for team in self.held if self.quotas else ():
            held, quota = self._of(team)
            rows = np.flatnonzero((running["team"] == team) & (running["yielding"] == 0))
            newest = rows[np.argsort(-running["started"][rows], kind="stable")]
            before = np.cumsum(running["size"][newest]) - running["size"][newest]
            found[newest[before < held - quota.gpus - _ROUNDING]] = True
        return found

    def words(self, run: Run) -> str:
        """Why the team may not hold the run."""
        held, quota = self._of(number_of(run.team))
        borrowed = "" if math.isinf(quota.borrow) else f" and may borrow {quota.borrow:g}"
        return f"team {run.team} holds {held:g} GPUs, owns {quota.gpus:g}{borrowed}; this run needs {run.demand.size:g}"

    def _of(self, team: int) -> tuple[float, Quota]:
        return self.held.get(team, 0.0), self.quotas.get(team, _NOTHING)

    def _columns(self) -> tuple[Floats, Floats, Floats]:
        """[teams that wait] what each holds, owns and may borrow."""
        known = [self._of(team) for team in self.teams.tolist()]
        columns = np.array([(held, quota.gpus, quota.borrow) for held, quota in known]).reshape(-1, 3)
        return columns[:, 0], columns[:, 1], columns[:, 2]
