"""The token contract: what a model was trained to read and to end with, kept with it from training to serving.

A file `token_contract.json` in the adapter, the merged model and every export. A server keeps the contract when it
makes the same prompt tokens of the golden conversation, and when its answer ends by itself, as the trained model's did.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.config import Model
from orchestrator.digests import digest_value
from orchestrator.errors import InputError

FILE = "token_contract.json"


class Golden(Model):
    """A conversation, what it is as tokens, and how the model answered it as trained, greedily."""

    messages: list[dict[str, Any]]
    prompt_ids: list[int]
    """The chat as tokens, up to where the assistant answers."""
    answer_ids: list[int]
    """Of the greedy answer; its end token is the last where it ended by itself."""
    text: str
    """The answer without special tokens."""
    ended: bool
    """Whether the answer ended by itself within `max_tokens`."""
    max_tokens: int


class TokenContract(Model):
    """What every copy of the model must keep."""

    chat_template: str
    """The template's text."""
    special_tokens: dict[str, Any]
    """The tokenizer's: bos_token, eos_token, pad_token, additional_special_tokens ..., as texts."""
    stop_ids: list[int]
    """Tokens at which an answer ends; the tokenizer's own first."""
    generation: dict[str, Any] = {}
    """Sampling defaults that the base brought (generation_config.json)."""
    vocabulary: int
    """Tokens that the tokenizer knows."""
    golden: Golden | None = None
    """None where training had no chat to show."""

    @property
    def digest(self) -> str:
        """Of all but the golden answer: two models with the same digest read and end alike."""
        return digest_value(self.model_dump(exclude={"golden"}))[:16]

    def summary(self) -> dict[str, Any]:
        """What a report says of it."""
        golden = self.golden
        how = "ended after" if golden and golden.ended else "did not end within"
        said = f"{how} {len(golden.answer_ids)} tokens" if golden else "none"
        return {"digest": self.digest, "chat_template": self.template_digest, "golden_answer": said}

    @property
    def template_digest(self) -> str:
        """Of the chat template, whatever space surrounds it."""
        return text_digest(self.chat_template)


def text_digest(text: str) -> str:
    """16 hex digits of a text, whatever space surrounds it."""
    return hashlib.sha256(text.strip().encode()).hexdigest()[:16]


def read(folder: Path) -> TokenContract | None:
    """The contract in a model's or an export's folder; None where there is none. Raises InputError for a broken one."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return TokenContract.model_validate_json(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is not a token contract: {error}", next_step="export the model again") from error


def write(contract: TokenContract, folder: Path) -> None:
    """Put it into a folder."""
    (folder / FILE).write_text(contract.model_dump_json(indent=2) + "\n")


def broken(contract: TokenContract, prompt_ids: Sequence[int] | None, template: str | None) -> list[str]:
    """What a running server does not keep of it, in words; empty when it keeps all that it tells."""
    found = []
    if template is not None and text_digest(template) != contract.template_digest:
        found.append("its chat template is not the one of training")
    golden = contract.golden
    if golden is not None and prompt_ids is not None and list(prompt_ids) != golden.prompt_ids:
        where = first_difference(golden.prompt_ids, prompt_ids)
        found.append(f"it reads the golden conversation as other tokens: {where}")
    return found


def first_difference(expected: Sequence[int], found: Sequence[int]) -> str:
    """Where two token sequences part, in words."""
    both = zip(expected, found, strict=False)
    place = next((index for index, (one, other) in enumerate(both) if one != other), min(len(expected), len(found)))
    lengths = f"{len(found)} tokens instead of {len(expected)}, " if len(found) != len(expected) else ""
    return f"{lengths}the first difference is at position {place}"
