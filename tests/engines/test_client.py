"""Readiness and complete answers, against processes that misbehave and a server that says what a test tells it to."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from orchestrator import processes
from orchestrator.engines import client
from orchestrator.errors import EngineError

MODELS = {"data": [{"id": "tiny@1"}]}
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


@pytest.fixture
def living(tmp_path) -> Iterator[processes.GuardedProcess]:
    """A process that lives until the test ends."""
    started = processes.start([sys.executable, "-c", "import signal; signal.pause()"], log=tmp_path / "log")
    yield started
    started.stop()


def test_an_engine_that_loads_answers_503_until_it_generates(living):
    loading = iter([True, True, False])

    def reply(path: str) -> tuple[int, Any]:
        if path.endswith("/models"):
            return (503, {"error": "Loading model"}) if next(loading) else (200, MODELS)
        return 200, ANSWER

    with engine(reply) as url:
        assert client.wait_until_ready(url, "tiny@1", living) > 0


def test_a_dead_process_is_an_error_with_the_end_of_its_log(tmp_path):
    dead = processes.start([sys.executable, "-c", "print('no such model'); raise SystemExit(3)"], log=tmp_path / "log")
    with pytest.raises(EngineError, match=r"(?s)exit code 3 before it was ready.*no such model"):
        client.wait_until_ready("http://127.0.0.1:9/v1", "tiny@1", dead)


def test_another_server_on_the_port_is_not_taken_for_ours(living):
    with (
        engine(lambda path: (200, {"data": [{"id": "other"}]})) as url,
        pytest.raises(EngineError, match="serves other"),
    ):
        client.wait_until_ready(url, "tiny@1", living)


def test_an_engine_whose_kernels_fail_is_not_ready_though_it_lists_its_model(living):
    def reply(path: str) -> tuple[int, Any]:
        return (200, MODELS) if path.endswith("/models") else (500, {"error": "no kernel image"})

    with engine(reply) as url, pytest.raises(EngineError, match="no kernel image"):
        client.wait_until_ready(url, "tiny@1", living)


def test_waiting_ends_at_the_time_out(living):
    with engine(lambda path: (503, {})) as url, pytest.raises(EngineError, match="not ready after 0 s"):
        client.wait_until_ready(url, "tiny@1", living, timeout_s=0.2)


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
        client.chat(url, "tiny@1", [], max_tokens=4)


def test_a_complete_answer_carries_its_counts():
    with engine(lambda path: (200, ANSWER)) as url:
        answer = client.chat(url, "tiny@1", [], max_tokens=4)
    assert answer == client.Answer(text="MIT", finish_reason="stop", prompt_tokens=9, completion_tokens=2)
