"""What the newest run of the same recipe on the same hardware needed: a prediction where the planner has none.

The catalog has no speed of a CPU, and some GPUs are not in it; but the second run of a recipe is much like the first.
Only a time that would be unknown is filled in, and its source names the run.
"""

from typing import NamedTuple

from orchestrator.planner.estimate import Estimate, Term, Unknown
from orchestrator.planner.plan import Plan
from orchestrator.stages.base import Outputs
from orchestrator.store.records import StageRun
from orchestrator.store.store import Store

SEARCHED = 20
"""Runs, the newest first."""
SPREAD = (0.6, 1.8)
"""Ends of the interval, times the middle: other processes on a laptop make half an hour of twenty minutes."""
PREFIX = "as in run "
"""Of the source of such an estimate."""


class Past(NamedTuple):
    """A stage that an earlier run has carried out in one attempt."""

    run: str
    seconds: float
    outputs: Outputs


class History:
    """The earlier runs of a recipe on a cluster and an accelerator (`KIND:COUNT`; None: the CPU)."""

    def __init__(self, store: Store, recipe: str, cluster: str, accelerator: str | None) -> None:
        self._store, self._recipe, self._where = store, recipe, (cluster, accelerator)
        self._rows: list[StageRun] | None = None

    def time(self, stage: str, tokens: Estimate | Unknown | None) -> Estimate | None:
        """Seconds; of training, by the tokens per second that it reached."""
        past = self._last(stage)
        if past is None:
            return None
        rate = past.outputs.metrics.get("tokens_per_s")
        if stage == "train" and rate and isinstance(tokens, Estimate):
            start = max(0.0, past.seconds - past.outputs.metrics.get("seconds", 0.0))
            value, because = (
                start + tokens.value / rate,
                f"{tokens.value:,.0f} tokens at {rate:,.0f}/s, {start:.0f} s before",
            )
            ends = (start + tokens.low / rate, start + tokens.high / rate)
        else:
            value, because, ends = past.seconds, "took so long", (past.seconds, past.seconds)
        return _estimate("s", value, ends, past.run, because)

    def memory(self, stage: str) -> Estimate | None:
        """Main memory of the stage's worker on a CPU, bytes."""
        past = self._last(stage)
        peak = past.outputs.report.get("peak_memory", {}).get(stage, {}) if past else {}
        if past is None or "reserved" in peak or not peak.get("rss"):
            return None
        return _estimate("bytes", peak["rss"], (peak["rss"], peak["rss"]), past.run, "peak main memory of its process")

    def _last(self, stage: str) -> Past | None:
        for row in self._made():
            if row.stage == stage and row.started and row.ended:
                return Past(row.run, row.ended - row.started, Outputs.model_validate(row.outputs or {}))
        return None

    def _made(self) -> list[StageRun]:
        if self._rows is None:
            self._rows = []
            for run in self._store.runs(SEARCHED):
                if run.name == self._recipe and _where(Plan.model_validate(run.plan)) == self._where:
                    rows = self._store.stage_runs(run.id)
                    self._rows += [row for row in rows if row.state == "succeeded" and row.attempts == 1]
        return self._rows


def _where(plan: Plan) -> tuple[str, str | None]:
    return plan.cluster.name, plan.forecast.accelerator if plan.forecast else plan.accelerator


def _estimate(unit: str, value: float, ends: tuple[float, float], run: str, because: str) -> Estimate:
    return Estimate(
        unit=unit,
        value=value,
        low=min(SPREAD[0] * value, ends[0]),
        high=max(SPREAD[1] * value, ends[1]),
        terms=[Term(name=run, amount=value, because=because)],
        source=f"{PREFIX}{run}",
    )
