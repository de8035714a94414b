"""Requests out of talks: the JSON that is sent, the model that it names, the time when it is sent."""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.loadgen.probe import Endpoint
from orchestrator.loadgen.requests import Request, answer_mark
from orchestrator.loadgen.workload.talk import Messages, Talk, Turn


@dataclass(frozen=True)
class Sampling:
    """What every body says beside its prompt. Nothing is left to defaults: those of engines differ."""

    endpoint: Endpoint
    model: str
    max_tokens: int
    """Where a turn has no length of its own."""
    temperature: float
    ignore_eos: bool
    """The server accepts `ignore_eos`, which makes an answer exactly as long as wanted."""
    request_fields: Mapping[str, Any] = field(default_factory=dict)
    """What each request must say besides, such as the adapter that answers."""


@dataclass(frozen=True)
class Requests:
    """The requests of some talks: made anew whenever they are gone through, so that no text is held."""

    talks: Sequence[Talk]
    starts: Sequence[float] | None
    """When each talk begins, seconds; None: when a stream is free."""
    models: Sequence[str] | None
    """The model of each talk, where they are mixed."""
    sampling: Sampling

    def __len__(self) -> int:
        return sum(len(talk.turns) for talk in self.talks)

    def __iter__(self) -> Iterator[Request]:
        for number, talk in enumerate(self.talks):
            at = None if self.starts is None else self.starts[number]
            model = None if self.models is None else self.models[number]
            for position, turn in enumerate(talk.turns):
                at = None if at is None else at + turn.think_s
                yield Request(
                    body=self._body(talk, position, turn, model or self.sampling.model),
                    at=at,
                    session=number if len(talk.turns) > 1 else -1,
                    turn=position,
                    think_s=turn.think_s,
                    prompt=turn.prompt,
                    model=model,
                )

    def _body(self, talk: Talk, position: int, turn: Turn, model: str) -> bytes:
        messages = conversation(talk, position)
        chat = self.sampling.endpoint == "chat"
        asked = {"messages": messages} if chat else {"prompt": "\n".join(each["content"] for each in messages)}
        body = {
            "model": model,
            **asked,
            "max_tokens": self.sampling.max_tokens if turn.output_tokens is None else turn.output_tokens,
            "temperature": self.sampling.temperature,
            "top_p": 1,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if turn.output_tokens is not None and self.sampling.ignore_eos:
            body["ignore_eos"] = True
        return compact(body | dict(self.sampling.request_fields))


def conversation(talk: Talk, position: int) -> Messages:
    """All messages of a turn; marks stand for the answers of the turns before it."""
    messages = list(talk.opening())
    for turn in range(1, position + 1):
        messages.append({"role": "assistant", "content": answer_mark(turn - 1).decode()})
        messages.append({"role": "user", "content": talk.later(turn)})
    return messages


def compact(body: Mapping[str, object]) -> bytes:
    """JSON without spaces; as ASCII only where a text holds half a surrogate pair, which UTF-8 cannot."""
    try:
        return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(body, separators=(",", ":")).encode()


def mixed(weights: Mapping[str, float], count: int, rng: random.Random) -> list[str]:
    """A model for each of `count` talks, as often as its weight says."""
    return rng.choices(list(weights), list(weights.values()), k=count)
