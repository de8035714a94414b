"""Talking to one engine over its OpenAI-compatible HTTP API: whole answers only.

Streams are the load generator's business.
"""

import http.client
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field

from orchestrator.config import Model
from orchestrator.errors import EngineError

LOADING = 503
"""Status of a server that loads its model."""


class Sampling(Model):
    """How an answer is drawn, said in full: no engine's own default is left to act, as they differ.

    llama.cpp would take temperature 0.8, top_k 40, min_p 0.05 and no limit, vLLM what generation_config.json says.
    """

    max_tokens: int = Field(ge=1)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    stop: tuple[str, ...] = ()
    """Texts that end an answer."""


class Answer(Model):
    """One complete chat answer."""

    text: str
    finish_reason: str
    """`stop` when the model ended it, `length` when max_tokens cut it."""
    prompt_tokens: int
    completion_tokens: int


class RefusedError(EngineError):
    """The engine is there and does not take this request (status 4xx): a prompt that is too long, above all."""


class StatusError(Exception):
    """An answer whose status is not 200; `call` makes an EngineError of it."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"status {status}: {body[:500]}")
        self.status, self.body = status, body


def chat(
    url: str,
    model: str,
    messages: Sequence[Mapping[str, Any]],
    sampling: Sampling,
    *,
    fields: Collection[str],
    extra: Mapping[str, Any] | None = None,
    timeout_s: float = 600.0,
) -> Answer:
    """The whole answer to a chat. Raises EngineError unless it is complete: a known finish reason and a usage."""
    body = request(model, messages, sampling, fields=fields, extra=extra)
    return answer_of(call(f"{url}/chat/completions", body, timeout_s=timeout_s))


def request(
    model: str,
    messages: Sequence[Mapping[str, Any]],
    sampling: Sampling,
    *,
    fields: Collection[str],
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The body of a chat request: the canonical fields, less those that the engine does not take.

    TensorRT-LLM refuses a field that it does not know, vLLM and llama.cpp ignore a misspelt one without a word.
    """
    wanted = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": 0,
        "min_p": 0,
        "repetition_penalty": 1,
        "repeat_penalty": 1,
        "max_tokens": sampling.max_tokens,
        **({"stop": list(sampling.stop)} if sampling.stop else {}),
        "stream": False,
    }
    asked = {name: value for name, value in wanted.items() if name in fields}
    return {"model": model, "messages": list(messages), **asked, **(extra or {})}


def call(url: str, body: Any = None, *, timeout_s: float = 60.0) -> Any:
    """The JSON that a GET (or, with a body, a POST) returns.

    Raises RefusedError for a request that the engine does not take (4xx), EngineError for anything else.
    """
    try:
        return json.loads(get_or_post(url, body, timeout_s=timeout_s))
    except StatusError as error:
        kind = RefusedError if 400 <= error.status < 500 else EngineError
        raise kind(f"the engine at {url} did not answer: {error}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise EngineError(f"the engine at {url} did not answer: {_words(error)}") from error


def models(url: str, *, timeout_s: float = 60.0) -> list[str]:
    """Names in the server's list of models.

    Raises StatusError, OSError or http.client.HTTPException while it does not answer, ValueError, KeyError or TypeError
    for what is no such list.
    """
    listed = json.loads(get_or_post(f"{url}/models", timeout_s=timeout_s))
    return [str(entry["id"]) for entry in listed["data"]]


def root(url: str) -> str:
    """The address of the engine's own endpoints: the base URL without /v1."""
    return url.removesuffix("/").removesuffix("/v1")


def answer_of(reply: Any) -> Answer:
    """The answer in a reply. Raises EngineError for one that is not complete."""
    try:
        choice, usage = reply["choices"][0], reply["usage"]
        answer = Answer(
            text=choice["message"]["content"] or "",
            finish_reason=str(choice["finish_reason"]),
            prompt_tokens=usage["prompt_tokens"],
            completion_tokens=usage["completion_tokens"],
        )
    except (KeyError, IndexError, TypeError) as error:
        raise EngineError(f"the engine's answer is not a chat completion: {json.dumps(reply)[:300]}") from error
    if answer.finish_reason not in ("stop", "length"):
        raise EngineError(f"the engine's answer is incomplete: finish_reason {answer.finish_reason!r}")
    return answer


def get_or_post(url: str, body: Any = None, *, timeout_s: float = 60.0) -> str:
    """The text that a GET (or, with a body, a POST) returns, without proxies: engines are on this cluster's network.

    Raises StatusError, OSError or http.client.HTTPException.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"}
        connection.request("GET" if body is None else "POST", parts.path or "/", data, headers)
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise StatusError(response.status, text)
    return text


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
