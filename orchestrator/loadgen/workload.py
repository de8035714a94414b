"""The prompts of a benchmark: a jsonl file of chats, sent in an order that a seed decides, each with its own nonce."""

import itertools
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from orchestrator.errors import InputError

Messages = list[dict[str, Any]]


def read_prompts(path: Path) -> list[Messages]:
    """The chats of a jsonl file, each up to its last turn that is not the assistant's.

    Raises InputError with the line for what is not a chat, and for a file that is missing or empty.
    """
    try:
        # not splitlines(): a raw U+2028 or U+0085 inside a JSON string ends no line
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the prompts of the benchmark: {error}") from error
    prompts = [_prompt(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not prompts:
        raise InputError(f"{path} has no prompts", next_step="write one chat per line, or leave out benchmark.workload")
    return prompts


def _prompt(path: Path, number: int, line: str) -> Messages:
    try:
        messages = json.loads(line)["messages"]
        while messages and messages[-1]["role"] == "assistant":
            messages = messages[:-1]
        valid = messages and all(isinstance(message["content"], str) for message in messages)
    except (ValueError, KeyError, TypeError):
        valid = False
    if not valid:
        raise InputError(
            f'{path}:{number}: not a prompt; a line is {{"messages": [{{"role": "user", "content": "..."}}]}}'
        )
    return list(messages)


def endless(prompts: Sequence[Messages], *, seed: int) -> Iterator[Messages]:
    """All prompts in a shuffled order, over and over in that same order; the same seed gives the same order."""
    order = list(prompts)
    random.Random(seed).shuffle(order)
    return itertools.cycle(order)


def with_nonce(messages: Messages, nonce: str) -> Messages:
    """The chat with `nonce` at the start of its first message: no prefix cache can have seen what follows."""
    first, *rest = messages
    return [{**first, "content": f"[{nonce}] {first['content']}"}, *rest]
