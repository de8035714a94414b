"""Errors: the number of failed requests by kind, and their share; `loadgen/record.py` lists the kinds."""

from collections import Counter
from collections.abc import Iterable, Sequence

from orchestrator.loadgen.record import Record, failure
from orchestrator.stats import rate

UNIT = "requests"


def by_kind(records: Iterable[Record]) -> dict[str, int]:
    """Kind of failure -> requests, the most frequent first."""
    return dict(Counter(kind for record in records if (kind := failure(record)) is not None).most_common())


def share(records: Sequence[Record]) -> float:
    """Failures / requests, 0..1; 0 without records."""
    return rate(sum(failure(record) is not None for record in records), len(records))


def example(records: Iterable[Record]) -> str | None:
    """What the server or the operating system said about one of the failures of the most frequent kind that has it."""
    said = [(kind, record.detail) for record in records if (kind := failure(record)) is not None and record.detail]
    if not said:
        return None
    most = Counter(kind for kind, _ in said).most_common(1)[0][0]
    return next(detail for kind, detail in said if kind == most)
