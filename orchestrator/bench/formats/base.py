"""What the formats share: requests of another tool as our records, and our cells as their requests."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestrator import __version__
from orchestrator.bench.result import Cell, Result, Target
from orchestrator.bench.summary import measured, summarize
from orchestrator.digests import digest_path, digest_value
from orchestrator.errors import InputError
from orchestrator.loadgen.load import Measurement
from orchestrator.loadgen.record import Record, failure

SECOND = 1_000_000_000
Load = Callable[[Cell], Measurement | None]
"""The records of a cell, where they were kept."""


@dataclass(frozen=True)
class Part:
    """One measurement in another tool's file."""

    mode: Literal["closed", "open"]
    records: Sequence[Record]
    concurrency: int | None = None
    rate: float | None = None
    chunk_times: bool = True
    """False: of an answer's deltas, only the first and the last are known, so that there is no ITL."""


@dataclass(frozen=True)
class Imported:
    """A result out of another tool's file, with its records by the ids of the cells."""

    result: Result
    measurements: Mapping[str, Measurement]


def imported(
    tool: str,
    version: str | None,
    path: Path,
    *,
    url: str,
    model: str,
    created: float,
    settings: Mapping[str, Any],
    parts: Sequence[Part],
) -> Imported:
    """Summaries are made from the requests by our own formulas; the same file always gives the same id."""
    digest = digest_path(path)[0]
    name = url.partition("://")[2].strip("/").removesuffix("/v1") or url or path.stem
    target = Target(name=name, url=url, model=model)
    cells, measurements = [], {}
    for order, part in enumerate(parts):
        measurement = _measurement(part.records)
        cell = _cell(digest_value([digest, order])[:16], name, order, part, measurement)
        cells.append(cell)
        measurements[cell.id] = measurement
    result = Result(
        id=f"{tool.replace('_', '-')}-{digest[:12]}",
        name=name,
        created=created,
        orch_version=__version__,
        source=f"{tool} {version}" if version else tool,
        settings=dict(settings),
        workloads={"imported": {"file": path.name}},
        targets=[target],
        cells=cells,
    )
    return Imported(result, measurements)


def _measurement(records: Sequence[Record]) -> Measurement:
    """The tools do not say when all streams were busy: the window is the whole."""
    start = min((record.sent for record in records), default=0)
    end = max((record.ended for record in records), default=0)
    return Measurement(records, start=start, end=end, workers=(), client_limited=False)


def _cell(id: str, target: str, order: int, part: Part, measurement: Measurement) -> Cell:
    summary = summarize(measurement) if part.records else None
    if summary is not None and not part.chunk_times:
        known = {name: spread for name, spread in summary.latencies.items() if name != "itl"}
        summary = summary.model_copy(update={"latencies": known})
    return Cell(
        id=id,
        target=target,
        workload="imported",
        mode=part.mode,
        concurrency=part.concurrency,
        rate=part.rate,
        state="done" if summary and summary.succeeded else "failed",
        cause=None if summary and summary.succeeded else "no request succeeded",
        started=measurement.start / SECOND,
        order=order,
        summary=summary,
        records=f"{id}.records",
    )


def success(
    index: int, sent: int, deltas: Sequence[int], ended: int, prompt_tokens: int | None, completion_tokens: int | None
) -> Record:  # fmt: skip
    """The record of a request that the tool counted as complete; times are ns, `deltas` those of its deltas."""
    record = Record(index=index, prompt=-1, intended=sent, sent=sent, ended=ended, status=200)
    record.content.extend(deltas)
    record.first_chunk = deltas[0] if deltas else 0
    record.prompt_tokens, record.completion_tokens = prompt_tokens, completion_tokens
    record.finish_reason, record.done = "stop", True
    return record


def failed(index: int, sent: int, ended: int, said: str) -> Record:
    """The record of a request that the tool counted as failed; the kind is that of a broken answer."""
    return Record(
        index=index, prompt=-1, intended=sent, sent=sent, ended=ended, error="disconnected", detail=said[:300]
    )


def kept(cell: Cell, load: Load) -> tuple[list[Record], Measurement]:
    """The measured records of a cell in the order of their sending. Raises InputError where they were not kept."""
    found = load(cell)
    if found is None:
        raise InputError(
            f"the records of {cell.target}, {cell.load} are not there, and this format needs every request",
            next_step="use --format csv or json, which need none",
        )
    return sorted(measured(found), key=lambda record: record.sent), found


def good(records: Sequence[Record]) -> list[Record]:
    """The successes."""
    return [record for record in records if failure(record) is None]


def gaps_s(record: Record) -> list[float]:
    """Between neighbouring deltas."""
    return [(later - before) / SECOND for before, later in zip(record.content, record.content[1:], strict=False)]


def done(result: Result) -> list[Cell]:
    """The cells that have numbers. Raises InputError when there is none."""
    cells = [cell for cell in result.cells if cell.state == "done" and cell.summary is not None]
    if not cells:
        raise InputError(f"{result.id} has no finished cell that could be exported")
    return cells


def suffix(cell: Cell) -> str:
    """What a cell's own file is called beyond the name of the whole."""
    load = f"c{cell.concurrency}" if cell.mode == "closed" else f"r{cell.rate:g}"
    # no dot: what follows one would be taken for the kind of the file
    return "-" + re.sub(r"[^A-Za-z0-9_-]+", "_", f"{cell.target}-{cell.workload.replace(',', '')}-{load}")
