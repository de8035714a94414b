"""Recorded traffic: when requests came and how long they were, out of the two formats that are published.

Azure LLM inference (https://github.com/Azure/AzurePublicDataset), CSV:

    TIMESTAMP,ContextTokens,GeneratedTokens
    2023-11-16 18:17:03.9799600,4808,10

Mooncake (https://github.com/kvcache-ai/Mooncake), JSON lines, `timestamp` in ms; equal `hash_ids` are equal blocks of
512 tokens, counted from the prompt's start:

    {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 48]}

The texts are made up: of the recorded lengths, with equal blocks where the trace has them.
"""

import csv
import functools
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from orchestrator.errors import InputError
from orchestrator.loadgen.requests import NONCE
from orchestrator.loadgen.tokens import OPENER, Passages, Vocabulary
from orchestrator.loadgen.workload.prefix import opened
from orchestrator.loadgen.workload.talk import Messages, Talk, Turn

BLOCK_TOKENS = 512
_BLOCK_KEYS = 1 << 41
"""Passages of blocks are numbered from here on."""
_LISTED = 5
_FORMATS = (
    "a CSV file with TIMESTAMP,ContextTokens,GeneratedTokens, or JSON lines with timestamp, input_length, output_length"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One recorded request."""

    at: float
    """Seconds after the first one, or after the start of the window."""
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    """Numbers of the blocks that it consists of, from its start; empty where the trace does not say."""


def read_trace(
    path: Path, *, limit: int | None = None, window: tuple[float, float] | None = None
) -> list[Row]:  # fmt: skip
    """The requests in order of time: those of a window (seconds after the first one), of these the first `limit`.

    Raises InputError with the lines that hold no request, and for a file or a window without any.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            found = _sliced(_rows(path, file), limit, window)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the trace: {error}") from error
    if not found:
        where = f" between {window[0]:g} and {window[1]:g} s" if window else ""
        raise InputError(f"{path} has no requests{where}", next_step=f"give {_FORMATS}")
    return found


def _sliced(rows: Iterator[Row], limit: int | None, window: tuple[float, float] | None) -> list[Row]:
    first = next(rows, None)
    if first is None:
        return []
    start, end = window or (0.0, float("inf"))
    times = ((row.at - first.at, row) for row in itertools.chain([first], rows))
    # a published trace is in order, so that what comes after the window need not be read
    inside = itertools.takewhile(lambda timed: timed[0] < end, times)
    kept = itertools.islice((timed for timed in inside if timed[0] >= start), limit)
    return sorted((replace(row, at=at - start) for at, row in kept), key=lambda row: row.at)


def _rows(path: Path, file: TextIO) -> Iterator[Row]:
    """Every line as a Row, with the time as it is written; raises at the first wrong ones."""
    parse = _json_row
    lines: Iterator[tuple[int, Any]] = ((number, line) for number, line in enumerate(file, 1) if line.strip())
    if path.suffix != ".jsonl" and not _begins_with_brace(file):
        columns = _columns(path, file.readline())
        parse = functools.partial(_csv_row, columns)
        lines = ((number, line) for number, line in enumerate(csv.reader(file), 2) if line)
    wrong: list[str] = []
    for number, line in lines:
        try:
            row = parse(line)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError):
            text = line.strip() if isinstance(line, str) else ",".join(line)
            wrong.append(f"{path}:{number}: not a request of a trace: {text[:120]!r}")
            if len(wrong) == _LISTED:
                break
        else:
            if not wrong:
                yield row
    if wrong:
        raise InputError("\n".join(wrong), next_step=f"a trace is {_FORMATS}")


def _begins_with_brace(file: TextIO) -> bool:
    character = file.read(1)
    file.seek(0)
    return character == "{"


def _columns(path: Path, header: str) -> tuple[int, int, int]:
    names = [name.strip().lower() for name in header.split(",")]
    try:
        return names.index("timestamp"), names.index("contexttokens"), names.index("generatedtokens")
    except ValueError:
        raise InputError(f"{path}:1: not the head of a trace: {header.strip()[:120]!r}",
                         next_step=f"a trace is {_FORMATS}") from None  # fmt: skip


def _csv_row(columns: tuple[int, int, int], cells: Sequence[str]) -> Row:
    time, context, generated = columns
    moment = datetime.fromisoformat(cells[time].strip())
    seconds = moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    return _row(seconds, int(cells[context]), int(cells[generated]))


def _json_row(line: str) -> Row:
    found = json.loads(line)
    blocks = tuple(int(block) for block in found.get("hash_ids") or ())
    return _row(float(found["timestamp"]) / 1000, int(found["input_length"]), int(found["output_length"]), blocks)


def _row(at: float, input_tokens: int, output_tokens: int, blocks: tuple[int, ...] = ()) -> Row:
    if input_tokens < 0 or output_tokens < 0 or not -1e12 < at < 1e12:
        raise ValueError("a length is below 0, or a time is none")
    return Row(at, max(1, input_tokens), max(1, output_tokens), blocks)


@dataclass(frozen=True)
class TraceTalks:
    """A recorded trace as talks of one turn, in the order of their times."""

    rows: Sequence[Row]
    passages: Passages
    vocabulary: Vocabulary
    nonce: bool
    salt: str
    """At the start of shared blocks, so that a measurement does not find those of the one before it in the cache."""
    pace: float = 1.0
    """How much quicker than recorded."""
    left_out: int = 0
    """Requests that were longer than what the server takes."""

    def talks(self) -> Iterator[Talk]:
        """One for each row."""
        uses = Counter(itertools.chain.from_iterable(row.blocks for row in self.rows))
        for number, row in enumerate(self.rows):
            shared = sum(1 for _ in itertools.takewhile(lambda block: uses[block] > 1, row.blocks))
            opening = functools.partial(self._opening, number, row, shared)
            turn = Turn(number, row.input_tokens, row.output_tokens)
            yield Talk((turn,), opening, at=row.at / self.pace, prefix=row.blocks[0] if shared else -1)

    def _opening(self, number: int, row: Row, shared: int) -> Messages:
        alone = not row.blocks or (self.nonce and not shared)
        text = self._alone(number, row) if alone else self._of_blocks(number, row, shared)
        return [{"role": "user", "content": text}]

    def _alone(self, number: int, row: Row) -> str:
        text = self.passages.text(number, row.input_tokens - self.vocabulary.overhead)[1:]
        return opened("" if self.nonce else OPENER, text, nonce=self.nonce)

    def _of_blocks(self, number: int, row: Row, shared: int) -> str:
        """Equal blocks as equal texts; then the nonce, and what no other request has."""
        marks = self.vocabulary.marker_tokens if self.nonce else 0
        left = max(0, row.input_tokens - self.vocabulary.overhead - marks)
        parts = [f"[{self.salt}]" if self.nonce else OPENER]
        for block in row.blocks[: shared if self.nonce else None]:
            parts.append(self.passages.text(_BLOCK_KEYS + block, min(left, BLOCK_TOKENS)))
            left -= min(left, BLOCK_TOKENS)
        nonce = f" [{NONCE.decode()}]" if self.nonce else ""
        return "".join([*parts, nonce, self.passages.text(number, left)])
