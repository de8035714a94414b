"""What `orch bench run` shows meanwhile: a table that moves on a terminal, elsewhere a line for each ended cell."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.cli import bench_show
from orchestrator.loadgen.load import Progress
from orchestrator.report.findings import load
from orchestrator.report.words import duration, number
from orchestrator.stats import percentile

Data = Mapping[str, Any]


@dataclass
class Current:
    """The cell that is being measured."""

    name: str
    place: int
    """From 1, in the order of the sweep."""
    total: int | None
    """Cells that there will be; None while a search decides."""
    began: float
    duration_s: float | None
    """How long it is to send; None where a number of requests decides."""
    progress: Progress | None = None

    def left_s(self) -> float | None:
        """Seconds that it may still take, as far as its progress says."""
        seen = self.progress
        if seen is None or seen.phase == "warm-up":
            return self.duration_s
        by_time = max(0.0, self.duration_s - seen.elapsed_s) if self.duration_s is not None else None
        if not seen.total or not seen.ended:
            return by_time
        by_count = max(0.0, seen.elapsed_s * (seen.total - seen.ended) / seen.ended)
        return by_count if by_time is None else min(by_time, by_count)


class View:
    """Follows a sweep; a context manager. `console` decides which of the two ways it shows."""

    def __init__(self, console: Console, targets: Sequence[Data], slo: Data | None, clock: Callable[[], float]) -> None:
        self._console, self._clock = console, clock
        self._so_far: dict[str, Any] = {"targets": targets, "slo": slo, "cells": []}
        self._current: Current | None = None
        self._seconds: list[float] = []
        self._live = Live(console=console, refresh_per_second=6, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live:
            self._live.stop()
            if kind is not None:  # no table of the whole result will follow
                self._current = None
                self._console.print(self.picture())

    def started(self, name: str, place: int, total: int | None, duration_s: float | None) -> None:
        """A cell begins."""
        self._current = Current(name, place, total, self._clock(), duration_s)
        self._update()

    def progressed(self, progress: Progress) -> None:
        """News of the cell that is being measured."""
        if self._current is not None:
            self._current.progress = progress
            self._update()

    def finished(self, cell: Data) -> None:
        """A cell has ended, done or failed."""
        self._so_far["cells"].append(cell)
        if self._current is not None:
            self._seconds.append(self._clock() - self._current.began)
        self._current = None
        if self._live:
            self._update()
        else:
            self._console.print(line(cell), soft_wrap=True)

    def said(self, words: str) -> None:
        """A sentence beside the cells, such as a retry."""
        self._console.print(escape(words), style="dim", soft_wrap=True)

    def _update(self) -> None:
        if self._live:
            self._live.update(self.picture())

    def picture(self) -> RenderableType:
        """The finished cells as rows, and the one that runs below them."""
        parts: list[RenderableType] = []
        for workload in dict.fromkeys(cell["workload"] for cell in self._so_far["cells"]):
            parts += [Text(workload, style="bold"), bench_show.cells(self._so_far, workload, self._console.width)]
            parts += [Text.from_markup(remark) for remark in bench_show.remarks(self._so_far, workload)]
        if self._current is not None:
            parts += [Text(), *_running(self._current, self._all_left_s(self._current))]
        return Group(*parts)

    def _all_left_s(self, current: Current) -> float | None:
        """Of the whole sweep: cells to come take as long as those that have ended."""
        here = current.left_s()
        if current.total is None or here is None:
            return None
        each = sum(self._seconds) / len(self._seconds) if self._seconds else current.duration_s or here
        return here + each * (current.total - current.place)


def _running(current: Current, all_left_s: float | None) -> list[RenderableType]:
    seen, left = current.progress, current.left_s()
    of = f"/{current.total}" if current.total else ""
    head = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=1, completed=_share(current, left), width=24)
    times = [f"about {duration(round(left))} left" if left is not None else "", _whole(current, all_left_s)]
    phase = seen.phase if seen else "starting"
    cell = f"[bold]{current.place}{of}  {escape(current.name)}[/]"
    head.add_row(Text.from_markup(cell), phase, bar, ", ".join(part for part in times if part))
    return [head, *([_now(seen)] if seen else [])]


def _whole(current: Current, left_s: float | None) -> str:
    return f"{duration(round(left_s))} for all cells" if left_s is not None and current.total != current.place else ""


def _share(current: Current, left: float | None) -> float:
    if current.progress is None or current.progress.phase == "warm-up" or left is None:
        return 0.0
    return current.progress.elapsed_s / max(current.progress.elapsed_s + left, 1e-9)


def _now(seen: Progress) -> Table:
    """The newest numbers of the cell that runs."""
    rate = seen.completion_tokens / seen.elapsed_s if seen.elapsed_s > 0 else 0.0
    errors = ", ".join(f"{count} {kind}" for kind, count in seen.errors.items())
    values = {
        "TTFT p50": _of(seen.recent_ttft_s, 50),
        "TTFT p95": _of(seen.recent_ttft_s, 95),
        "ITL p50": _of(seen.recent_itl_s, 50),
        "tokens/s": number(round(rate)),
        "done": number(seen.ended) + (f"/{number(seen.total)}" if seen.total else ""),
        "in flight": number(seen.in_flight),
        "errors": f"[yellow]{escape(errors)}[/]" if errors else "none",
    }
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in values:
        table.add_column(title, justify="left" if title == "errors" else "right")
    table.add_row(*values.values())
    return table


def _of(values: Sequence[float], share: float) -> str:
    return duration(percentile(values, share)) if values else "–"


def line(cell: Data) -> str:
    """A cell that has ended as one line."""
    clock = time.strftime("%H:%M:%S", time.localtime())
    name = f"{clock} {escape(cell['target'])}, {escape(cell['workload'])}, {load(cell)}"
    summary = cell["summary"]
    if cell["state"] == "failed" or not summary:
        return f"{name}: [red]failed[/]: {escape(cell['cause'] or 'no reason was recorded')}"
    parts = [f"{number(summary['succeeded'])} of {number(summary['requests'])} requests"]
    for latency, title in (("ttft", "TTFT"), ("itl", "ITL")):
        if latency in summary["latencies"]:
            spread = summary["latencies"][latency]
            parts.append(f"{title} p50 {duration(spread['p50'])}, p95 {duration(spread['p95'])}")
    parts.append(f"{number(summary['output_tokens_per_s'])} tokens/s")
    if summary["errors"]:
        parts.append(", ".join(f"{count} {escape(kind)}" for kind, count in summary["errors"].items()))
    if summary["client"] and summary["client"]["limited"]:
        parts.append("[red]client-limited: add --workers[/]")
    return f"{name}: {'; '.join(parts)}"
