"""Own prompts: chats or single prompts from a file, in an order that a seed decides.

A `.txt` file has a prompt a line. Any other has JSON: a row a line, or one list of rows, each in one of these forms:

    {"messages": [{"role": "user", "content": "..."}]}           sent without its last answer
    {"prompt": "..."}
    {"conversations": [{"from": "human", "value": "..."}]}       ShareGPT; rows without a human's turn are left out
"""

import functools
import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import InputError
from orchestrator.loadgen.workload.distributions import Draw
from orchestrator.loadgen.workload.prefix import Prefixes, opened
from orchestrator.loadgen.workload.talk import Messages, Talk, Turn

_SHAREGPT_ROLES = {"human": "user", "user": "user", "system": "system", "tool": "tool"} | dict.fromkeys(
    ("gpt", "chatgpt", "assistant", "bing", "bard", "model"), "assistant"
)
_FORM = '{"messages": [{"role": "user", "content": "..."}]}'
_LISTED = 5


def read_prompts(path: Path, *, limit: int | None = None) -> list[Messages]:
    """The chats of a file, each up to its last turn that is not the assistant's; the first `limit`.

    Raises InputError with the lines that hold no prompt, and for a file that is missing or empty.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the prompts of the benchmark: {error}") from error
    rows = itertools.islice(_rows(path, text), limit)
    found = [(place, _prompt(row)) for place, row in rows]
    wrong = [place for place, prompt in found if prompt is None]
    if wrong:
        raise InputError(_wrong(path, wrong), next_step="mend or remove these lines; nothing was started")
    prompts = [prompt for _, prompt in found if prompt]
    if not prompts:
        raise InputError(f"{path} has no prompts", next_step="write one chat per line, or leave out benchmark.workload")
    return prompts


def _rows(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """(where, row) of each row that is not blank; a row that is no JSON is None."""
    # not splitlines(): a raw U+2028 or U+0085 inside a JSON string ends no line
    lines = text.split("\n")
    if path.suffix == ".txt":
        yield from ((f"{path}:{n}", {"prompt": line.strip()}) for n, line in enumerate(lines, 1) if line.strip())
        return
    if path.suffix == ".json" and isinstance(rows := _json(text), list):
        yield from ((f"{path}: entry {number}", row) for number, row in enumerate(rows, 1))
        return
    yield from ((f"{path}:{number}", _json(line)) for number, line in enumerate(lines, 1) if line.strip())


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _prompt(row: Any) -> Messages | None:
    """The chat of a row; None: it is none; empty: it has nothing to ask."""
    try:
        if "prompt" in row:
            return [{"role": "user", "content": row["prompt"]}] if _is_text(row["prompt"]) else None
        shared = "conversations" in row
        messages = [_said(turn) for turn in row["conversations"]] if shared else list(row["messages"])
        while messages and messages[-1]["role"] == "assistant":
            messages.pop()
        while shared and messages and messages[0]["role"] == "assistant":
            messages.pop(0)
        valid = all(isinstance(message["content"], str) and isinstance(message["role"], str) for message in messages)
    except (KeyError, TypeError):
        return None
    return messages if valid and (messages or shared) else None


def _said(turn: Any) -> dict[str, Any]:
    return {"role": _SHAREGPT_ROLES[turn["from"]], "content": turn["value"]}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _wrong(path: Path, places: Sequence[str]) -> str:
    listed = [f'{place}: not a prompt; a line is {_FORM} or {{"prompt": "..."}}' for place in places[:_LISTED]]
    more = [f"... and {len(places) - _LISTED} more lines of {path}"] if len(places) > _LISTED else []
    return "\n".join([*listed, *more])


@dataclass(frozen=True)
class DatasetTalks:
    """Prompts as talks, round and round in one shuffled order."""

    rows: Sequence[Messages]
    seed: int
    nonce: bool
    prefixes: Prefixes | None = None
    turns: Callable[[], int] | None = None
    """Turns of a session; None: each row is one request."""
    think: Draw | None = None
    output: Callable[[], int] | None = None
    """Exact length of an answer; None: up to the limit."""

    def talks(self) -> Iterator[Talk]:
        """Without end: the rows again when all were given."""
        return self._single() if self.turns is None else self._sessions(self.turns)

    def _order(self) -> list[int]:
        order = list(range(len(self.rows)))
        random.Random(f"{self.seed}:order").shuffle(order)
        return order

    def _single(self) -> Iterator[Talk]:
        outputs = [self.output() if self.output else None for _ in self.rows]
        for index in itertools.cycle(self._order()):
            prefix = self.prefixes.draw() if self.prefixes else -1
            opening = functools.partial(self._opening, self.rows[index], prefix)
            yield Talk((Turn(index, output_tokens=outputs[index]),), opening, prefix=prefix)

    def _sessions(self, turns: Callable[[], int]) -> Iterator[Talk]:
        """A session asks what one row's user asks, and goes on with the next rows' until it has its turns."""
        order, numbers = itertools.cycle(self._order()), itertools.count()
        while True:
            count, first = turns(), self.rows[next(order)]
            start = next((n for n, message in enumerate(first) if message["role"] == "user"), len(first) - 1)
            texts = [message["content"] for message in first[start + 1 :] if message["role"] == "user"]
            while len(texts) < count - 1:
                texts += [message["content"] for message in self.rows[next(order)] if message["role"] == "user"]
            prefix = self.prefixes.draw() if self.prefixes else -1
            yield Talk(
                turns=tuple(self._turn(next(numbers), first=turn == 0) for turn in range(count)),
                opening=functools.partial(self._opening, first[: start + 1], prefix),
                later=functools.partial(_text_of_turn, texts),
                prefix=prefix,
            )

    def _turn(self, number: int, *, first: bool) -> Turn:
        think = 0.0 if first or self.think is None else self.think()
        return Turn(number, output_tokens=self.output() if self.output else None, think_s=think)

    def _opening(self, messages: Messages, prefix: int) -> Messages:
        first, *rest = messages
        common = self.prefixes.text(prefix) if self.prefixes and prefix >= 0 else ""
        return [{**first, "content": opened(common, first["content"], nonce=self.nonce)}, *rest]


def _text_of_turn(texts: Sequence[str], turn: int) -> str:
    return texts[turn - 1]
