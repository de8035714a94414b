"""What becomes of a result: it is kept, shown, written as files, compared with a baseline, and told to a webhook."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import GateFailedError, InfrastructureError, InputError, OrchError

if TYPE_CHECKING:
    from orchestrator.bench.compare import Comparison
    from orchestrator.bench.result import Result
    from orchestrator.cli.bench_results import Found

Limit = float | Mapping[str, float] | None
"""Share by which numbers may be worse than the baseline's: one for all, or by metric where only some are judged."""
_NAMED = 5
"""Regressions in one line."""


@dataclass(frozen=True)
class After:
    """What was asked for."""

    as_json: bool
    csv: Path | None
    html: Path | None
    webhook: str | None
    baseline: str | None
    limit: Limit


def before(after: After, home: Path, names: Sequence[str]) -> "Found | None":
    """The result to compare with. Raises InputError, before anything is measured, for what could only fail later.

    `names` are those that the new result goes by: its own, and its service's.
    """
    if after.webhook is not None:
        from orchestrator import webhook

        webhook.check(after.webhook)
    for path in (after.csv, after.html):
        if path is not None:
            from orchestrator.cli import bench_results

            bench_results.check_writable(path)
    if after.baseline is None and after.limit is None:
        return None
    from orchestrator.cli import bench_results  # the store: what needs no baseline must not wait for it
    from orchestrator.store.store import Store

    store = Store(home)
    wanted = [after.baseline] if after.baseline is not None else names
    of = next((id for name in wanted if (id := store.baseline(name)) is not None), None)
    if of is None and after.baseline is None:
        raise InputError(
            f"--fail-on-regression needs something to compare with, and {' or '.join(names)} has no baseline",
            next_step=f"`orch bench baseline set {names[0]} ID`, or --baseline ID",
        )
    return bench_results.find(store, of or str(after.baseline))


def finish(result: "Result", home: Path, after: After, against: "Found | None", *, stopped: bool = False) -> None:
    """All of it. Raises GateFailedError for a regression, InfrastructureError when no cell has succeeded.

    What the user has `stopped` is kept and shown, and is no failure.
    """
    from orchestrator.cli import bench_results, bench_show
    from orchestrator.store.store import Store

    Store(home).add_benchmark(result.model_dump(mode="json"))
    found = bench_results.Found(result, bench_results.folder(home, result.id))
    comparison = bench_results.compared(against, found) if against is not None else None
    page = bench_results.write_report(result, after.html or found.folder / "report.html", comparison)
    if after.csv is not None:
        bench_results.export(found, "csv", after.csv)
    if after.as_json:
        print(result.model_dump_json(indent=2))
    else:
        bench_show.result(result.model_dump(mode="json"))
        _compared(comparison)
        bench_show.console().print(
            f"report  {page}\nkept    {result.id}; `orch bench show {result.id}`", soft_wrap=True
        )
    error = None if stopped else _failed(result)
    if error is None and against is not None and not stopped:
        error = _regressed(comparison, after.limit, against.result.id)
    if after.webhook is not None:
        _tell(after.webhook, result, error)
    if error is not None:
        raise error


def _compared(comparison: "Comparison | None") -> None:
    from orchestrator.cli import bench_show

    if comparison is not None:
        bench_show.comparison(comparison.model_dump(mode="json"))


def gate(comparison: "Comparison", limit: Limit, against: str) -> None:
    """Raises GateFailedError where something became worse by the limit."""
    error = _regressed(comparison, limit, against)
    if error is not None:
        raise error


def _failed(result: "Result") -> OrchError | None:
    if any(cell.state == "done" for cell in result.cells):
        return None
    causes = dict.fromkeys(cell.cause for cell in result.cells if cell.cause)
    return InfrastructureError(f"no cell of {result.id} succeeded: {'; '.join(causes) or 'there is none'}")


def _regressed(comparison: "Comparison | None", limit: Limit, against: str) -> OrchError | None:
    from orchestrator.bench.compare import regressions

    if comparison is not None and limit is not None and not comparison.cells:
        return InputError(
            f"--fail-on-regression: no cell has a partner in {against}, so that nothing was compared",
            next_step="measure the same workloads at the same loads, or name another baseline",
        )
    worse = regressions(comparison, limit) if comparison is not None and limit is not None else []
    if not worse or limit is None:
        return None
    lines = [f"{found.cell}: {found.verdict}" for found in worse]
    more = f"\n  and {len(lines) - _NAMED} more" if len(lines) > _NAMED else ""
    listed = "\n  ".join(lines[:_NAMED])
    size = "its limit" if isinstance(limit, Mapping) else f"{100 * limit:g} %"
    return GateFailedError(f"worse than {against} by {size} or more:\n  {listed}{more}")


def _tell(url: str, result: "Result", error: OrchError | None) -> None:
    """Whether it is heard does not decide how the benchmark ends."""
    from orchestrator import webhook
    from orchestrator.cli import bench_show
    from orchestrator.report.findings import findings

    said = [sentence for sentences in findings(result.model_dump(mode="json")).values() for sentence in sentences[:1]]
    payload: dict[str, Any] = {
        "event": "benchmark.regressed" if isinstance(error, GateFailedError) else "benchmark.finished",
        "text": f"orch: benchmark {result.name}: {error.message if error else ' '.join(said)}",
        **{"benchmark": result.id, "name": result.name, "run": result.run, "service": result.service},
    }
    try:
        webhook.post(url, payload)
    except InfrastructureError as failed:
        bench_show.console(stderr=True).print(f"[yellow]warning[/]: {failed.message}", soft_wrap=True)
