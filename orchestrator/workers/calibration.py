"""What a quantization is calibrated on: chats of the training data, rendered as the model was trained to read them."""

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from orchestrator import jsonlines

FILE = "calibration.json"
MOST_TOKENS_OF_A_CHAT = 2048


def chats(rows: Path) -> list[list[dict[str, Any]]]:
    """The messages of each of the JSON lines {"messages": [...]}."""
    return [row["messages"] for row in jsonlines.read(rows)]


def draw(found: Sequence[Any], seed: int) -> Iterator[Any]:
    """All of them once, in an order that the seed decides."""
    return iter(random.Random(seed).sample(found, len(found)))


def token_ids(tokenizer: Any, drawn: Iterable[Sequence[dict[str, Any]]], enough: int) -> list[list[int]]:
    """Whole chats, answers included, as token ids; as many as have `enough` tokens together, each cut to the most."""
    found: list[list[int]] = []
    for messages in drawn:
        if sum(map(len, found)) >= enough:
            break
        ids = tokenizer.apply_chat_template(list(messages), tokenize=True, return_dict=False)
        found.append(list(ids)[:MOST_TOKENS_OF_A_CHAT])
    return found


def record(folder: Path, calibrated_on: Sequence[Sequence[int]], seed: int) -> None:
    """`calibration.json`: how many chats and tokens, and the seed that drew them."""
    said = {"rows": len(calibrated_on), "tokens": sum(map(len, calibrated_on)), "seed": seed}
    (folder / FILE).write_text(json.dumps(said, indent=2) + "\n")
