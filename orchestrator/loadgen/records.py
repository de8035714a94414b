"""The file of a measurement's records: one marshalled header, then one marshalled tuple per record.

A worker appends to such a file while it runs, so that what was measured outlives it.
"""

import dataclasses
import marshal
from array import array
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

from orchestrator.errors import InputError
from orchestrator.loadgen.load import Measurement, WorkerReport
from orchestrator.loadgen.record import Record

_FORMAT = 1
_FIELDS = tuple(field.name for field in dataclasses.fields(Record))
_CONTENT = _FIELDS.index("content")
_values = attrgetter(*_FIELDS)


def append(file: BinaryIO, record: Record) -> None:
    """Write one record."""
    values = list(_values(record))
    values[_CONTENT] = record.content.tobytes()
    marshal.dump(values, file)


def read(path: Path) -> Iterator[Record]:
    """The records of a worker's file; one that was cut by its death is left out."""
    with path.open("rb") as file:
        yield from _records(file)


def save_records(path: Path, measurement: Measurement) -> None:
    """Write a measurement whole or not at all. OSError where it cannot be written."""
    header = {
        "format": _FORMAT,
        "start": measurement.start,
        "end": measurement.end,
        "client_limited": measurement.client_limited,
        "clock_step_s": measurement.clock_step_s,
        "workers": [dataclasses.astuple(worker) for worker in measurement.workers],
    }
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        marshal.dump(header, file)
        for record in measurement.records:
            append(file, record)
    partial.replace(path)


def load_records(path: Path) -> Measurement:
    """What `save_records` wrote. Raises InputError for a file that is none or is missing."""
    try:
        with path.open("rb") as file:
            header = marshal.load(file)
            if not isinstance(header, dict) or header.get("format") != _FORMAT:
                raise ValueError("unknown format")
            records = list(_records(file))
    except (OSError, ValueError, EOFError, TypeError) as error:
        raise InputError(f"cannot read the records of a benchmark from {path}: {error}") from error
    workers: Sequence[Any] = header["workers"]
    return Measurement(
        records=records,
        start=header["start"],
        end=header["end"],
        workers=[WorkerReport(*worker) for worker in workers],
        client_limited=header["client_limited"],
        clock_step_s=header["clock_step_s"],
    )


def _records(file: BinaryIO) -> Iterator[Record]:
    while True:
        try:
            values = marshal.load(file)
        except (EOFError, ValueError, TypeError):
            return
        content = array("q")
        content.frombytes(values[_CONTENT])
        values[_CONTENT] = content
        yield Record(*values)
