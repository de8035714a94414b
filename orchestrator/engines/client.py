"""Talking to one engine over its OpenAI-compatible HTTP API: is it ready, what does it answer.

Ready means that it generated tokens under the expected name: a refused connection and status 503 are an engine that
loads, and a 200 from /health proves neither that its kernels run nor that it is ours. Streams are the load
generator's business.
"""

import http.client
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from orchestrator import processes
from orchestrator.config import Model
from orchestrator.errors import EngineError
from orchestrator.processes import GuardedProcess

READY_TIMEOUT_S = 600.0
_PAUSE_S = 0.05
_LOADING = 503


class Answer(Model):
    """One complete chat answer."""

    text: str
    finish_reason: str
    """`stop` when the model ended it, `length` when max_tokens cut it."""
    prompt_tokens: int
    completion_tokens: int


class _StatusError(Exception):
    """An answer whose status is not 200."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"status {status}: {body[:500]}")
        self.status = status


def wait_until_ready(url: str, model: str, process: GuardedProcess, *, timeout_s: float = READY_TIMEOUT_S) -> float:
    """Seconds until the engine at `url` (with /v1) generated tokens as `model`.

    Raises EngineError when the process ends, answers wrongly, or needs longer than `timeout_s`; the error carries the
    end of its log.
    """
    started = time.monotonic()
    while time.monotonic() - started < timeout_s:
        code = process.poll()
        if code is not None:
            raise _failed(f"the engine ended with {processes.died_of(code)} before it was ready", process)
        if _generates(url, model, process, started + timeout_s):
            return time.monotonic() - started
        time.sleep(_PAUSE_S)
    raise _failed(f"the engine was not ready after {timeout_s:.0f} s", process)


def chat(
    url: str, model: str, messages: Sequence[Mapping[str, Any]], *, max_tokens: int, timeout_s: float = 600.0
) -> Answer:
    """The greedy answer to a chat. Raises EngineError unless it is complete: a known finish reason and a usage."""
    body = {
        "model": model,
        "messages": list(messages),
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": False,
    }
    return _answer(call(f"{url}/chat/completions", body, timeout_s=timeout_s))


def call(url: str, body: Any = None, *, timeout_s: float = 60.0) -> Any:
    """The JSON that a GET (or, with a body, a POST) returns. Raises EngineError for anything else."""
    try:
        return _request(url, body, timeout_s)
    except (_StatusError, OSError, http.client.HTTPException, ValueError) as error:
        raise EngineError(f"the engine at {url} did not answer: {_words(error)}") from error


def root(url: str) -> str:
    """The address of the engine's own endpoints: the base URL without /v1."""
    return url.removesuffix("/").removesuffix("/v1")


def _generates(url: str, model: str, process: GuardedProcess, deadline: float) -> bool:
    """Whether a real chat works now; False while the engine loads."""
    left_s = max(1.0, deadline - time.monotonic())
    try:
        served = [entry["id"] for entry in _request(f"{url}/models", None, left_s)["data"]]
        if model not in served:
            raise _failed(f"the server at {url} serves {', '.join(served)}, not {model!r}", process)
        answer = _answer(_request(f"{url}/chat/completions", _probe(model), left_s))
    except _StatusError as error:
        if error.status == _LOADING:
            return False
        raise _failed(f"the engine cannot answer: {error}", process) from error
    except (OSError, http.client.HTTPException):
        return False  # refused, or cut because it is ending: the next poll tells
    except (KeyError, TypeError, ValueError) as error:
        raise _failed(f"the server at {url} does not answer like an engine: {_words(error)}", process) from error
    return answer.completion_tokens > 0


def _probe(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2, "temperature": 0}


def _answer(reply: Any) -> Answer:
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


def _request(url: str, body: Any, timeout_s: float) -> Any:
    """One JSON request without proxies: engines live on this machine or this cluster's network."""
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
        raise _StatusError(response.status, text)
    return json.loads(text)


def _failed(what: str, process: GuardedProcess) -> EngineError:
    return EngineError(f"{what}; the end of its log:\n{process.last_lines()}", next_step=f"read {process.log}")


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
