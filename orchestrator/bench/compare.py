"""Compares two results cell by cell: what changed, whether it was shown, and what of it is a regression; pure.

A cell's partner has the same workload, mode and load, on the target of the same name; where both results have one
target, on that one. `paired.py` has the statistics, `verdict.py` the words.

A change is a **regression** against a limit, such as 5 %, when both hold:

    1. it is in the bad direction by the limit at least; nine tenths of it are enough, so that a true 5 % that was
       measured as 4.7 % does not pass
    2. it is no chance: its p value, adjusted for all metrics of all cells that are compared (Holm), is below 5 %,
       and its own 95 % interval lies on the bad side of zero

So at most one comparison in twenty of a thing with itself would fail, were any change enough; the limit makes it far
fewer. More errors are a regression when Fisher's test says so at 5 % (adjusted over the cells), whatever the limit;
a cell that has failed in B alone is one too. What no records are at hand for is never a regression.
The intervals know what varies within a run. What varies between runs (clocks, placement, neighbours) only shows in
repeated runs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import computed_field

from orchestrator.bench import differences
from orchestrator.bench.paired import Change, Side, changes, from_summaries
from orchestrator.bench.result import Cell, Result
from orchestrator.bench.summary import measured
from orchestrator.bench.verdict import percent
from orchestrator.config import Model
from orchestrator.loadgen.load import Measurement
from orchestrator.loadgen.record import Record, failure
from orchestrator.stats import holm, share_difference_p

Load = Callable[[Result, Cell], Measurement | None]
"""The records of a cell; None where there are none."""

TOLERANCE = 0.9
LEVEL = 0.05
PAIRED_SHARE = 0.5
"""Of the requests, from which on a comparison counts as paired."""


class Errors(Model):
    """The failures of both sides."""

    failed_a: int
    requests_a: int
    failed_b: int
    requests_b: int
    p_value: float
    verdict: str


class CellComparison(Model):
    """Two cells that belong together."""

    name: str
    """`vllm, chat, 8 streams`."""
    a: str
    b: str
    """Ids of the cells."""
    paired: bool
    note: str
    """How the requests were paired, or why not."""
    changes: list[Change] = []
    errors: Errors | None = None
    failed: str | None = None
    """Why B's cell has failed, when A's has not."""
    warnings: list[str] = []


class Comparison(Model):
    """Result B against result A."""

    a: str
    b: str
    """Ids of the results."""
    title: str
    """Name of A, for a heading such as `Against ...`."""
    pairing: str
    """How the cells found their partners."""
    cells: list[CellComparison]
    unmatched: list[str]
    """Cells without a partner, and of which side."""
    warnings: list[str]
    """What else differs, so that a change may not be the target's doing."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def sentences(self) -> list[str]:
        """Every verdict with the cell that it is about; first what is worth reading first."""
        said = [f"{cell.name}: {text}" for cell in self.cells for text in _verdicts(cell)]
        return [*(f"warning: {warning}" for warning in self.warnings), *said]


class Regression(Model):
    """One thing that became worse by more than the limit."""

    cell: str
    metric: str
    change: float | None
    """Relative; None for errors and failed cells."""
    verdict: str


def only(result: Result, target: str) -> Result:
    """The part of a result that is about one target, so that two targets of one sweep can be compared."""
    cells = [cell for cell in result.cells if cell.target == target]
    return result.model_copy(update={"targets": [result.target(target)], "cells": cells})


def compare(a: Result, b: Result, load: Load, *, seed: int = 0) -> Comparison:
    """B against A. `load` gives the records of a cell; `seed` decides the draws of the bootstrap."""
    targets, pairing = _targets(a, b)
    pairs, unmatched = _pairs(a, b, targets)
    return Comparison(
        a=a.id,
        b=b.id,
        title=f"{a.name} ({a.id})",
        pairing=pairing,
        cells=[_compared((a, ours), (b, theirs), load, seed) for ours, theirs in pairs],
        unmatched=unmatched,
        warnings=differences.between(a, b, targets),
    )


def regressions(comparison: Comparison, limits: float | Mapping[str, float]) -> list[Regression]:
    """What became worse by its limit (0.05 is 5 %) or more; see the rule above.

    `limits` is one for all metrics, or one for each metric that is to be judged: the fewer, the fewer false alarms.
    """

    def limit_of(change: Change) -> float | None:
        return limits.get(change.metric) if isinstance(limits, Mapping) else limits

    tested = [
        (cell, change, limit)
        for cell in comparison.cells
        for change in cell.changes
        if change.p_value is not None and (limit := limit_of(change)) is not None
    ]
    adjusted = holm([change.p_value or 0.0 for _, change, _ in tested])
    found = [
        Regression(cell=cell.name, metric=change.metric, change=change.change, verdict=change.verdict)
        for (cell, change, limit), p_value in zip(tested, adjusted, strict=True)
        if p_value < LEVEL and change.worse_by >= TOLERANCE * limit and _is_shown(change)
    ]
    return [*_failures(comparison.cells), *found]


def _is_shown(change: Change) -> bool:
    return change.interval is not None and not change.interval[0] <= 0 <= change.interval[1]


def _failures(cells: Sequence[CellComparison]) -> list[Regression]:
    found = [
        Regression(cell=cell.name, metric="state", change=None, verdict=f"failed in B alone: {cell.failed}")
        for cell in cells
        if cell.failed is not None
    ]
    counted = [(cell, cell.errors) for cell in cells if cell.errors is not None]
    for (cell, errors), p_value in zip(counted, holm([errors.p_value for _, errors in counted]), strict=True):
        if p_value < LEVEL and errors.failed_b / errors.requests_b > errors.failed_a / errors.requests_a:
            found.append(Regression(cell=cell.name, metric="errors", change=None, verdict=errors.verdict))
    return found


def _verdicts(cell: CellComparison) -> list[str]:
    shown = [change.verdict for change in cell.changes if _is_shown(change)]
    rest = [change.verdict for change in cell.changes if not _is_shown(change)]
    failed = [f"failed in B: {cell.failed}"] if cell.failed else []
    errors = [cell.errors.verdict] if cell.errors else []
    return [*failed, *(f"warning: {warning}" for warning in cell.warnings), *shown, *errors, *rest]


# Which cells belong together


def _targets(a: Result, b: Result) -> tuple[dict[str, str], str]:
    """Name of each target of A -> that of its partner in B, and how they were matched."""
    ours, theirs = [target.name for target in a.targets], [target.name for target in b.targets]
    if len(ours) == len(theirs) == 1:
        return {ours[0]: theirs[0]}, f"A is {ours[0]}, B is {theirs[0]}"
    shared = [name for name in ours if name in theirs]
    return {name: name for name in shared}, f"by target: {', '.join(shared) or 'no name is in both'}"


def _pairs(a: Result, b: Result, targets: Mapping[str, str]) -> tuple[list[tuple[Cell, Cell]], list[str]]:
    free = list(b.cells)
    pairs, unmatched = [], []
    for cell in a.cells:
        wanted = (targets.get(cell.target), *_key(cell))
        partner = next((other for other in free if (other.target, *_key(other)) == wanted), None)
        if partner is None:
            unmatched.append(f"{_name(cell)}: in A only")
            continue
        free.remove(partner)
        pairs.append((cell, partner))
    return pairs, [*unmatched, *(f"{_name(cell)}: in B only" for cell in free)]


def _key(cell: Cell) -> tuple[Any, ...]:
    return cell.workload, cell.mode, cell.concurrency if cell.mode == "closed" else cell.rate


def _name(cell: Cell) -> str:
    return f"{cell.target}, {cell.workload}, {cell.load}"


# One pair of cells


def _compared(a: tuple[Result, Cell], b: tuple[Result, Cell], load: Load, seed: int) -> CellComparison:
    (result_a, ours), (result_b, theirs) = a, b
    names = list(dict.fromkeys([_name(ours), _name(theirs)]))
    base = CellComparison(name=" -> ".join(names), a=ours.id, b=theirs.id, paired=False, note="")
    if ours.summary is None or theirs.summary is None:
        sides = [side for side, cell in (("A", ours), ("B", theirs)) if cell.summary is None]
        only_b = theirs.cause or "no cause is known" if sides == ["B"] else None
        return base.model_copy(
            update={"note": f"nothing to compare: failed in {' and '.join(sides)}", "failed": only_b}
        )
    records = load(result_a, ours), load(result_b, theirs)
    if records[0] is None or records[1] is None:
        found = from_summaries(ours.summary, theirs.summary)
        return base.model_copy(update={"note": "no records, so no change can be told from chance", "changes": found})
    same = differences.same_prompts(result_a, result_b, ours.workload)
    sides_ = Side(records[0], ours.summary, result_a.slo), Side(records[1], theirs.summary, result_b.slo)
    found, shared = changes(*sides_, same_prompts=same, seed=seed)
    sent = measured(records[0]), measured(records[1])
    return base.model_copy(
        update={
            "paired": shared >= PAIRED_SHARE,
            "note": _how(shared, same),
            "changes": found,
            "errors": _errors(*sent),
            "warnings": differences.between_cells(ours, theirs, *sent, same_prompts=same),
        }
    )


def _how(shared: float, same_prompts: bool) -> str:
    if not same_prompts:
        return "unpaired: A and B were asked different prompts"
    if shared >= PAIRED_SHARE:
        return f"paired by prompt: {100 * shared:.0f} % of the requests have a partner"
    return f"unpaired: only {100 * shared:.0f} % of the requests are of prompts that both were asked"


def _errors(a: Sequence[Record], b: Sequence[Record]) -> Errors | None:
    if not a or not b:
        return None
    failed = [sum(failure(record) is not None for record in records) for records in (a, b)]
    shares = f"{percent(failed[0] / len(a))} of the requests failed in A, {percent(failed[1] / len(b))} in B"
    chance = share_difference_p(failed[0], len(a), failed[1], len(b))
    said = f"errors: {shares}" + ("" if chance < LEVEL else ", which may be chance")
    return Errors(
        failed_a=failed[0],
        requests_a=len(a),
        failed_b=failed[1],
        requests_b=len(b),
        p_value=chance,
        verdict=said if any(failed) else "no errors",
    )
