"""Cached tokens: prompt tokens that the server took from its prefix cache, as its `usage` says.

Unknown is not zero: a server that does not report them gives None.
"""

from collections.abc import Iterable, Sequence

from orchestrator.loadgen.record import Record

UNIT = "tokens"


def total(records: Iterable[Record]) -> int | None:
    """Sum over the records that say it; None if none does."""
    known = [record.cached_tokens for record in records if record.cached_tokens is not None]
    return sum(known) if known else None


def share(records: Sequence[Record]) -> float | None:
    """Cached tokens / prompt tokens of the records that say both, 0..1; None if none does."""
    known = [record for record in records if record.cached_tokens is not None and record.prompt_tokens]
    if not known:
        return None
    return sum(record.cached_tokens or 0 for record in known) / sum(record.prompt_tokens or 0 for record in known)
