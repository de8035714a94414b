"""How well the planner predicts: memory and speed of fine-tunes, speed of serving, against published measurements.

    python benchmarks/planner.py                        the calibration tables, each source left out of the fit in turn
    python benchmarks/planner.py --table other.csv      another table in the same columns, with the shipped constants
    python benchmarks/planner.py --fit                  constants fitted on all rows, to be copied by hand
    python benchmarks/planner.py --out planner.json     writes the result, with date and commit

A source is a repository: a notebook left out while its neighbours stay in would tell nothing. The serving table has one
alone, whose documents of 2024, 2025 and 2026 measured other models, GPUs and loads: each is a source there. Beside each
prediction stands what a user has today on the same rows. No row is dropped in silence: those that cannot be predicted
are named.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import planner_finetune
import planner_memory
import planner_serving

from orchestrator.catalog.unknown import Unknown
from orchestrator.errors import OrchError

FACTS = Path(__file__).parents[2] / "shared" / "facts"
TARGETS = {"memory": (0.08, 0.2), "fine-tune speed": (0.25, None), "serving throughput": (0.2, None)}
"""Median and 90th percentile of |error| that were asked for."""
Row = dict[str, str]


class Judged(NamedTuple):
    """One measurement beside its prediction, in the same unit."""

    source: str
    measured: float
    predicted: float
    inside: bool
    """The measurement is in the prediction's interval."""
    wrong_verdict: bool
    """It ran, and was said not to fit; or the other way round."""
    today: dict[str, float]
    """What a user's rules of thumb say."""


class Result(NamedTuple):
    """A table's."""

    name: str
    rows: int
    judged: list[Judged]
    refused: list[str]
    """Rows without a prediction, with the reason."""


def main() -> None:
    """Print the report, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=Path, default=FACTS, help="folder with calibration/*.csv")
    parser.add_argument("--table", type=Path, action="append", help="another table; which one is seen by its columns")
    parser.add_argument("--fit", action="store_true", help="print the constants fitted on all rows")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    options = parser.parse_args()
    if options.fit:
        print_fits(options.facts / "calibration")
        return
    results = [other(path) for path in options.table] if options.table else list(calibration(options.facts))
    for result in results:
        print("\n".join(report(result)))
    if options.out:
        options.out.write_text(json.dumps(record(results, options.table), indent=1) + "\n", encoding="utf-8")


def calibration(facts: Path) -> Iterator[Result]:
    """The three tables, by leave-one-source-out."""
    folder = facts / "calibration"
    memory, finetune = (
        planner_memory.rows(folder / planner_memory.TABLE),
        planner_finetune.rows(folder / planner_finetune.TABLE),
    )
    yield judge("memory", memory, _without(memory, planner_memory.fit, planner_memory.group), _memory)
    yield judge("fine-tune speed", finetune, _without(finetune, planner_finetune.fit, planner_memory.group), _speed)
    yield serving(planner_serving.rows(folder / planner_serving.TABLE), left_out=True)


def other(path: Path) -> Result:
    """A table in the columns of one of the three, with the shipped constants."""
    table = planner_memory.rows(path)
    columns = set(table[0]) if table else set()
    if planner_memory.COLUMN in columns:
        return judge("memory", table, lambda _: planner_memory.SHIPPED, _memory)
    if columns & {"ttft_ms", "tpot_ms", "concurrency"}:
        return serving(table, left_out=False)
    if columns & {"tokens_per_s", "sec_per_step", "micro_batch"}:
        return judge("fine-tune speed", table, lambda _: planner_finetune.SPEED, _speed)
    raise SystemExit(f"{path}: its columns are those of no table: {', '.join(sorted(columns)) or 'it has no rows'}")


def judge(
    name: str, table: list[Row], constants: Callable[[Row], Any], one: Callable[[Row, Any], Judged | None]
) -> Result:
    """Every row, with the constants that hold for it."""
    judged, refused = [], []
    for row in table:
        try:
            found = one(row, constants(row))
        except (OrchError, ValueError, KeyError) as error:
            refused.append(f"{row.get('id', '?')} {row.get('model', '')}: {_first_line(error)}")
            continue
        if found is None:
            refused.append(f"{row.get('id', '?')} {row.get('model', '')}: no number was measured")
        else:
            judged.append(found)
    return Result(name, len(table), judged, refused)


def _without(table: list[Row], fit: Callable[[list[Row]], Any], group: Callable[[Row], str]) -> Callable[[Row], Any]:
    """The constants fitted on the rows of all sources but the row's own."""
    fitted = {name: fit([row for row in table if group(row) != name]) for name in {group(row) for row in table}}
    return lambda row: fitted[group(row)]


def _memory(row: Row, constants: planner_memory.Constants) -> Judged | None:
    measured, predicted = planner_memory.measured(row), planner_memory.predict(row, constants)
    fits, source = planner_memory.fits(row, constants), planner_memory.group(row)
    if measured is None:
        ran = not planner_memory.ran_out(row)
        return None if ran else Judged(source, math.nan, predicted, True, fits is True, {})
    low, high = planner_memory.interval(row, constants)
    today = planner_memory.baselines(row)
    return Judged(source, measured, predicted, low <= measured <= high, fits is False, today)


def _speed(row: Row, constants: Any) -> Judged | None:
    measured, predicted = planner_finetune.measured(row), planner_finetune.predict(row, constants)
    if measured is None:
        return None
    low, high = planner_finetune.interval(row, constants)
    today = planner_finetune.baselines(row)
    return Judged(planner_memory.group(row), measured, predicted, low <= measured <= high, False, today)


def serving(table: list[Row], *, left_out: bool) -> Result:
    """Throughput alone; planner_serving.py prints the latencies too."""
    cases = [(row, planner_serving.case(row)) for row in table]
    known = [found for _, found in cases if not isinstance(found, Unknown)]
    by = dict(planner_serving.without_each_source(known)) if left_out else {}
    judged, refused = [], []
    for row, found in cases:
        if isinstance(found, Unknown):
            refused.append(f"{row.get('id', '?')} {row.get('model', '')}: {found.reason.splitlines()[0]}")
            continue
        constants = by.get(row["source"]) or planner_serving.fitted()
        errors, measured = planner_serving.errors([found], constants)["throughput"], planner_serving.measured(row)
        if measured is None:
            continue  # a row of latencies only
        spread = constants.spread.get("throughput") or planner_serving.fitted().spread.get("throughput", 0.5)
        source = f"{planner_memory.group(row)} {row.get('date', '')}".strip()  # all are of one repository
        judged.append(Judged(source, measured, measured * math.exp(errors[0]), abs(errors[0]) <= spread, False, {}))
    return Result("serving throughput", len(table), judged, refused)


def report(result: Result) -> list[str]:
    """Lines of a table: by source, all, and what a user has today."""
    columns = f"{'rows':>5} {'median':>8} {'p90':>8} {'bias':>8} {'inside':>7} {'wrong':>6}"
    lines = ["", f"{result.name:44} {columns}"]
    numbers = [one for one in result.judged if not math.isnan(one.measured)]
    for source in sorted({one.source for one in result.judged}):
        lines.append(_line(source, [one for one in result.judged if one.source == source]))
    lines.append(_line("all", result.judged))
    for rule in dict.fromkeys(rule for one in numbers for rule in one.today):
        lines.append(_line(f"today: {rule}", [_today(one, rule) for one in numbers]))
    wanted = TARGETS[result.name]
    asked = f"median <= {wanted[0]:.0%}" + (f", p90 <= {wanted[1]:.0%}" if wanted[1] else "")
    lines.append(f"asked: {asked}; {len(result.judged)} of {result.rows} rows judged")
    lines += [f"  not predicted: {reason}" for reason in result.refused]
    return lines


def _today(one: Judged, rule: str) -> Judged:
    return one._replace(predicted=one.today[rule], inside=False, wrong_verdict=False)


def summary(judged: list[Judged]) -> dict[str, float]:
    """Rows, median and 90th percentile of |error|, median signed error, share inside the interval, wrong verdicts."""
    off = sorted(one.predicted / one.measured - 1 for one in judged if not math.isnan(one.measured))
    absolute = sorted(map(abs, off)) or [math.nan]
    return {
        "rows": len(judged),
        "median": statistics.median(absolute),
        "p90": absolute[min(len(absolute) - 1, int(0.9 * len(absolute)))],
        "bias": statistics.median(off) if off else math.nan,
        "inside": sum(one.inside for one in judged) / max(1, len(judged)),
        "wrong": sum(one.wrong_verdict for one in judged),
    }


def _line(name: str, judged: list[Judged]) -> str:
    found = summary(judged)
    figures = f"{found['median']:8.1%} {found['p90']:8.1%} {found['bias']:+8.1%}"
    tail = "" if name.startswith("today") else f" {found['inside']:7.0%} {found['wrong']:6.0f}"
    return f"{name:44} {found['rows']:5.0f} {figures}{tail}"


def record(results: list[Result], tables: list[Path] | None) -> dict[str, Any]:
    """The report as data."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit(),
        "how": f"shipped constants on {', '.join(path.name for path in tables)}" if tables else "leave one source out",
        "tables": {
            result.name: {
                "all": summary(result.judged),
                "sources": {
                    source: summary([one for one in result.judged if one.source == source])
                    for source in sorted({one.source for one in result.judged})
                },
                "today": {
                    rule: summary([_today(one, rule) for one in result.judged if rule in one.today])
                    for rule in dict.fromkeys(rule for one in result.judged for rule in one.today)
                },
                "not_predicted": result.refused,
            }
            for result in results
        },
    }


def commit() -> str | None:
    """Of this working tree."""
    asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def print_fits(folder: Path) -> None:
    """Constants from all rows, and the intervals that hold nine in ten measurements of left-out sources."""
    for name, module, one in (("memory", planner_memory, _memory), ("fine-tune speed", planner_finetune, _speed)):
        table = module.rows(folder / module.TABLE)
        print(name, module.fit(table).model_dump_json(indent=1))
        judged = judge(name, table, _without(table, module.fit, planner_memory.group), one).judged
        ratios = sorted(row.measured / row.predicted for row in judged if not math.isnan(row.measured))
        at = [ratios[int(share * (len(ratios) - 1))] for share in (0.05, 0.95)]
        print(f"{name}: measured over predicted, 5th and 95th percentile: {at[0]:.2f} {at[1]:.2f}")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


if __name__ == "__main__":
    main()
