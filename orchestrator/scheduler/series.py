"""A sequence of values that keeps their table from one decision to the next.

`decide` takes plain tuples. Ten thousand values are read from memory in milliseconds, however; who decides often keeps
a `Series`, changes it by what has changed, and saves that time: `series.changed(remove=["run-7"], put=[run])`.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from typing import Any, Protocol, TypeVar, overload

import numpy as np
import numpy.typing as npt

from orchestrator.scheduler.values import Running, number_of

Rows = npt.NDArray[np.uint8]
Parts = tuple[Rows, npt.NDArray[np.int64]]
"""(the rows of all bundles, how many of them each value has)"""


class Value(Protocol):
    """A node, a run, or one that runs: it has a name, and its numbers as a row of bytes that begins with it."""

    @property
    def key(self) -> str: ...
    @property
    def row(self) -> bytes: ...


V = TypeVar("V", bound=Value)


class Series(Sequence[V]):
    """Immutable; `rows` is an array of bytes, [values, bytes of a row]."""

    def __init__(self, values: Iterable[V] = ()) -> None:
        self._values = tuple(values)
        self.rows = _rows([value.row for value in self._values])
        self.parts: Parts | None = None
        """Of running runs: what `parts_of` has found."""

    def changed(self, *, remove: Iterable[str] = (), put: Iterable[V] = ()) -> "Series[V]":
        """Without some, by name, and with others: in the place of one of the same name, or else at the end."""
        kept = np.ones(len(self), bool)
        for name in remove:
            kept[self._find(name)] = False
        values, rows, new, replaced = list(self._values), self.rows.copy(), list[V](), False
        for value in put:
            at = self._find(value.key)
            if len(at):
                values[at[0]], rows[at[0]], replaced = value, np.frombuffer(value.row, np.uint8), True
            else:
                new.append(value)
        found = type(self)(new)
        found._values = (*compress(values, kept.tolist()), *new)
        found.rows = _joined(rows[kept], found.rows)
        if self.parts is not None and not replaced:
            found.parts = _carried(self.parts, kept, new)
        return found

    def _find(self, name: str) -> npt.NDArray[np.int64]:
        if not len(self):
            return np.zeros(0, np.int64)
        return np.flatnonzero(self.rows[:, :8].copy().view("<i8")[:, 0] == number_of(name))

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[V]:
        return iter(self._values)

    @overload
    def __getitem__(self, at: int) -> V: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[V]: ...
    def __getitem__(self, at: int | slice) -> V | Sequence[V]:
        return self._values[at]


def table(values: Sequence[Value], layout: np.dtype[Any]) -> npt.NDArray[np.void]:
    """One row in this layout for each value."""
    rows = values.rows if isinstance(values, Series) else _rows([value.row for value in values])
    return rows.reshape(-1).view(layout) if len(values) else np.zeros(0, layout)


def parts_of(running: Sequence[Running]) -> Parts:
    """The bundles of all who run; a series keeps them, and carries them over when runs come and go."""
    if not isinstance(running, Series):
        return _parts(running)
    if running.parts is None:
        running.parts = _parts(running)
    return running.parts


def _parts(running: Sequence[Any]) -> Parts:
    counts = np.array([len(entry.placements) for entry in running], np.int64)
    return _rows([entry.parts for entry in running], int(counts.sum())), counts


def _carried(parts: Parts, kept: npt.NDArray[np.bool_], new: Sequence[Any]) -> Parts:
    (rows, counts), (more, others) = parts, _parts(new)
    return _joined(rows[np.repeat(kept, counts)], more), np.concatenate([counts[kept], others])


def _rows(packed: Sequence[bytes], count: int | None = None) -> Rows:
    count = len(packed) if count is None else count
    return np.frombuffer(b"".join(packed), np.uint8).reshape(count, -1) if count else np.zeros((0, 0), np.uint8)


def _joined(old: Rows, new: Rows) -> Rows:
    return np.concatenate([old, new]) if len(old) and len(new) else old if len(old) else new
