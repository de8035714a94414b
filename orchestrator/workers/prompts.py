"""The prompts that parity asks, out of the held-out rows: short ones, medium ones, and ones that fill the context."""

from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import Any

from orchestrator.workers import loading

Row = dict[str, Any]
Chat = dict[str, Any]
"""{row, bucket, messages, own, source, prompt_ids}"""


def held_out(rows: Sequence[Row], count: int, tokenizer: Any) -> list[Chat]:
    """`count` rows, evenly spaced: the third with the fewest prompt tokens is `short`, the others are `medium`."""
    chats = [_chat(index, rows[index]["messages"][:-1], rows, tokenizer) for index in spread(len(rows), count)]
    by_length = sorted(range(len(chats)), key=lambda place: len(chats[place]["prompt_ids"]))
    short = set(by_length[: round(len(chats) / 3)])
    return [{**chat, "bucket": "short" if place in short else "medium"} for place, chat in enumerate(chats)]


def near_limit(rows: Sequence[Row], count: int, tokenizer: Any, room: int) -> list[Chat]:
    """Questions of evenly spaced rows after as many other rows, as earlier turns, as fit into `room` prompt tokens.

    A row's own answer is never among them. None where a question alone does not fit, or nothing can go before it.
    """
    made = (_filled(index, rows, tokenizer, room) for index in spread(len(rows), count))
    return [{**chat, "bucket": "near_limit"} for chat in made if chat]


def spread(count: int, wanted: int) -> list[int]:
    """Indices of at most `wanted` of `count`, evenly spaced: files are often sorted."""
    wanted = min(count, wanted)
    return [index * count // wanted for index in range(wanted)]


def _filled(index: int, rows: Sequence[Row], tokenizer: Any, room: int) -> Chat | None:
    system, question = _parts(rows[index]["messages"][:-1])
    left = room - len(loading.prompt_ids(tokenizer, [*system, *question]))
    blocks: list[list[Row]] = []
    for block, tokens in _blocks(index, rows, tokenizer):
        if tokens > left:
            break
        blocks.append(block)
        left -= tokens
    while blocks:
        earlier = [turn for block in blocks for turn in block]
        chat = _chat(index, [*system, *earlier, *question], rows, tokenizer)
        if len(chat["prompt_ids"]) <= room:
            return chat
        blocks.pop()  # together they may be a few tokens longer than one by one
    return None


def _blocks(index: int, rows: Sequence[Row], tokenizer: Any) -> Iterator[tuple[list[Row], int]]:
    """(turns, tokens) of the rows after this one, round and round; rows that cannot be earlier turns are left out."""
    others = [rows[(index + step) % len(rows)] for step in range(1, len(rows))]
    found = []
    for row in others:
        turns = _parts(row["messages"])[1]
        if turns[0]["role"] == "user" and row["messages"] != rows[index]["messages"]:
            found.append((turns, _tokens(tokenizer, turns)))
            yield found[-1]
    yield from cycle(found)


def _tokens(tokenizer: Any, turns: list[Row]) -> int:
    """What the turns add to a prompt that goes on after them."""
    last = [{"role": "user", "content": "?"}]
    return len(loading.prompt_ids(tokenizer, [*turns, *last])) - len(loading.prompt_ids(tokenizer, last))


def _parts(messages: list[Row]) -> tuple[list[Row], list[Row]]:
    """The system turn, if there is one, and the others."""
    first = 1 if messages[0]["role"] == "system" else 0
    return messages[:first], messages[first:]


def _chat(index: int, messages: list[Row], rows: Sequence[Row], tokenizer: Any) -> Chat:
    row = rows[index]
    source = row.get("source") or "\n".join(turn["content"] for turn in row["messages"][:-1])
    own = row["messages"][-1]["content"]
    ids = loading.prompt_ids(tokenizer, messages)
    return {"row": index, "messages": messages, "own": own, "source": source, "prompt_ids": ids}
