"""A sequence of values that keeps their table from one decision to the next.

`decide` takes plain tuples. Ten thousand values are read from memory in milliseconds, however; who decides often keeps
a `Series`, changes it by what has changed, and saves that time: `series.changed(remove=["run-7"], put=[run])`.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from typing import Any, Protocol, TypeVar, overload

import numpy as np
import numpy.typing as npt

from orchestrator.scheduler.values import number_of


class Value(Protocol):
    """A node, a run, or one that runs: it has a name, and its numbers as a row of bytes that begins with it."""

    @property
    def key(self) -> str: ...
    @property
    def row(self) -> bytes: ...


V = TypeVar("V", bound=Value)


class Series(Sequence[V]):
    """Immutable; `rows` is a read-only array of bytes, [values, bytes of a row]."""

    def __init__(self, values: Iterable[V] = ()) -> None:
        self._values = tuple(values)
        self.rows = _rows(self._values)

    def changed(self, *, remove: Iterable[str] = (), put: Iterable[V] = ()) -> "Series[V]":
        """Without some, by name, and with others: in the place of one of the same name, or else at the end."""
        kept = np.ones(len(self), bool)
        for name in remove:
            kept[self._find(name)] = False
        values, new = list(self._values), list[V]()
        rows = self.rows.copy()
        for value in put:
            at = self._find(value.key)
            if len(at):
                values[at[0]], rows[at[0]] = value, np.frombuffer(value.row, np.uint8)
            else:
                new.append(value)
        return self._of((*compress(values, kept.tolist()), *new), rows[kept], _rows(new))

    @classmethod
    def _of(cls, values: tuple[V, ...], old: npt.NDArray[np.uint8], new: npt.NDArray[np.uint8]) -> "Series[V]":
        found = cls.__new__(cls)
        found._values = values
        found.rows = np.concatenate([old, new]) if len(old) and len(new) else old if len(old) else new
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


def _rows(values: Sequence[Value]) -> npt.NDArray[np.uint8]:
    joined = b"".join([value.row for value in values])
    return np.frombuffer(joined, np.uint8).reshape(len(values), -1) if values else np.zeros((0, 0), np.uint8)


def table(values: Sequence[Value], layout: np.dtype[Any]) -> npt.NDArray[np.void]:
    """One row in this layout for each value."""
    rows = values.rows if isinstance(values, Series) else _rows(values)
    return np.ascontiguousarray(rows).reshape(-1).view(layout) if len(values) else np.zeros(0, layout)
