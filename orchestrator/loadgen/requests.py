"""Prepared requests: what a workload makes and what a worker process sends, and the file that carries them.

A body is complete JSON but for two kinds of marks, which the worker replaces when it sends: `NONCE` (the same length as
what replaces it) and `answer_mark(turn)`, the text that the server gave in an earlier turn of the same session.
"""

import marshal
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import BinaryIO

NONCE = b"@nonce-of-orch-0@"
"""Replaced by as many characters that no other request of any run has; turns of one session share theirs."""


def answer_mark(turn: int) -> bytes:
    """Stands inside a JSON string for the server's answer of that turn (from 0) of the same session."""
    return b"@answer-%d-of-session@" % turn


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a workload."""

    body: bytes
    """JSON of the request, `stream` and `include_usage` included, with marks."""
    at: float | None = None
    """Open loop: seconds after the start when it is to be sent; None: when a stream is free (closed loop)."""
    session: int = -1
    """Number of the conversation that it is a turn of; -1: none."""
    turn: int = 0
    """Turn in its session, from 0. Turn k is sent after turn k - 1 has ended."""
    think_s: float = 0.0
    """Least time between the end of the turn before and this one."""
    prompt: int = -1
    """Number of the prompt among the workload's distinct ones; the same in every run with the same seed."""
    model: str | None = None
    """Model named in the body, where the workload mixes several (LoRA adapters)."""


def write(path: Path, requests: Iterable[Request]) -> int:
    """Write the requests to a file; how many."""
    count = 0
    with path.open("wb") as file:
        for count, request in enumerate(requests, 1):  # noqa: B007
            marshal.dump(astuple(request), file)
    return count


def read(path: Path) -> Iterator[Request]:
    """The requests of a file, one at a time."""
    with path.open("rb") as file:
        yield from read_again(file)


def read_again(file: BinaryIO) -> Iterator[Request]:
    """The requests of an open file from its beginning: a new descriptor may not be had under full load."""
    file.seek(0)
    while True:
        try:
            yield Request(*marshal.load(file))
        except EOFError:
            return
