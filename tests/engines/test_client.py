"""Complete answers and canonical requests, against a server that says what a test tells it to."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from orchestrator.engines import client
from orchestrator.errors import EngineError

SAMPLING = client.Sampling(max_tokens=4)
FIELDS = frozenset({"temperature", "max_tokens"})
ANSWER = {
    "choices": [{"message": {"content": "MIT"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2},
}


@contextmanager
def engine(reply: Callable[[str], tuple[int, Any]]) -> Iterator[str]:
    """A server whose replies are a function of the path; gives its base URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = reply(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


def test_a_request_says_everything_that_the_engine_takes_and_nothing_else():
    sampling = client.Sampling(max_tokens=4, stop=("END",))
    body = client.request("m", [], sampling, fields={"temperature", "max_tokens", "top_k"}, extra={"lora": []})
    assert body == {"model": "m", "messages": [], "temperature": 0, "max_tokens": 4, "top_k": 0, "lora": []}
    assert client.request("m", [], sampling, fields={"stop"})["stop"] == ["END"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"choices": [{"message": {"content": "M"}, "finish_reason": "abort"}]}, "finish_reason 'abort'"),
        ({"usage": None}, "not a chat completion"),
        ({"choices": []}, "not a chat completion"),
    ],
)
def test_an_incomplete_answer_is_an_error(damage, message):
    with engine(lambda path: (200, ANSWER | damage)) as url, pytest.raises(EngineError, match=message):
        client.chat(url, "tiny@1", [], SAMPLING, fields=FIELDS)


def test_a_complete_answer_carries_its_counts():
    with engine(lambda path: (200, ANSWER)) as url:
        answer = client.chat(url, "tiny@1", [], SAMPLING, fields=FIELDS)
    assert answer == client.Answer(text="MIT", finish_reason="stop", prompt_tokens=9, completion_tokens=2)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, client.RefusedError), (404, client.RefusedError), (500, EngineError)]
)
def test_a_request_that_is_not_taken_is_told_from_an_engine_that_fails(status, kind):
    with engine(lambda path: (status, {"error": "too long"})) as url, pytest.raises(EngineError) as caught:
        client.chat(url, "tiny@1", [], SAMPLING, fields=FIELDS)
    assert type(caught.value) is kind
    assert "too long" in caught.value.message
