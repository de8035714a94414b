"""Webhooks over a real HTTP server on localhost."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from orchestrator import webhook
from orchestrator.errors import InfrastructureError, InputError
from orchestrator.processes import free_port

PAYLOAD = {"event": "schedule.failed", "text": "nightly failed – exit code 5", "exit_code": 5}


class Receiver:
    """What a server was sent; it answers with the statuses given, the last of them again and again. 0: it hangs up."""

    def __init__(self, port: int, statuses: list[int]) -> None:
        self.url = f"http://127.0.0.1:{port}/services/T0KEN?key=S3CRET"
        self.statuses = statuses
        self.requests: list[tuple[str, str, dict[str, Any]]] = []


@contextlib.contextmanager
def receiving(*statuses: int) -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            receiver.requests.append((self.path, self.headers["content-type"], body))
            status = receiver.statuses.pop(0) if len(receiver.statuses) > 1 else receiver.statuses[0]
            if status:
                self.send_response(status)
                self.send_header("location", "/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = Receiver(server.server_address[1], list(statuses))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_payload_arrives_as_json_at_the_whole_url() -> None:
    with receiving(200) as receiver:
        webhook.post(receiver.url, PAYLOAD)
    assert receiver.requests == [("/services/T0KEN?key=S3CRET", "application/json", PAYLOAD)]


@pytest.mark.parametrize("passing", [500, 503, 429, 0])
def test_what_may_pass_is_tried_again_with_growing_pauses(passing: int) -> None:
    waited: list[float] = []
    with receiving(passing, passing, 204) as receiver:
        webhook.post(receiver.url, PAYLOAD, wait=waited.append)
    assert len(receiver.requests) == 3
    assert waited == [1, 2]


def test_attempts_are_bounded_and_the_error_keeps_the_secret() -> None:
    with receiving(500) as receiver, pytest.raises(InfrastructureError) as caught:
        webhook.post(receiver.url, PAYLOAD, attempts=2, wait=lambda _: None)
    assert len(receiver.requests) == 2
    assert "was not told of schedule.failed: HTTP 500" in str(caught.value)
    assert "2 of 2 attempts" in str(caught.value)
    assert "T0KEN" not in str(caught.value)
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize("final", [400, 404, 302])
def test_a_refusal_is_not_tried_again_nor_is_a_redirect_taken_for_delivered(final: int) -> None:
    with receiving(final) as receiver, pytest.raises(InfrastructureError, match=f"HTTP {final}.*1 of 3"):
        webhook.post(receiver.url, PAYLOAD, wait=lambda _: pytest.fail("waited"))
    assert len(receiver.requests) == 1


def test_nobody_there_is_one_error() -> None:
    with pytest.raises(InfrastructureError, match="Connection refused"):
        webhook.post(f"http://127.0.0.1:{free_port()}/x", PAYLOAD, wait=lambda _: None)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("hooks.example.com/T0KEN", "must begin with http"),
        ("ftp://hooks.example.com/T0KEN", "must begin with http"),
        ("https:///T0KEN", "names no host"),
        ("https://hooks.example.com:port/T0KEN", "not a URL"),
        ("https://[::1/T0KEN", "not a URL"),
        ("https://me:T0KEN@hooks.example.com/", "user name"),
        ("https://hooks.example.com/T0KEN x", "percent-encoded"),
        ("https://hooks.example.com/T0KEN\n", "percent-encoded"),
        ("https://hooks.example.com/T0KENü", "percent-encoded"),
        ("", "must begin with http"),
    ],
)
def test_a_url_that_is_none_is_bad_input_and_is_not_repeated(url: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        webhook.post(url, PAYLOAD)
    assert "T0KEN" not in str(caught.value).replace("services/TOKEN", "")


def test_redacted_shows_the_host_alone() -> None:
    assert webhook.redacted("https://hooks.slack.com/services/T0/B0/X?y=z") == "https://hooks.slack.com/…"
    assert webhook.redacted("http://127.0.0.1:8080/x") == "http://127.0.0.1:8080/…"


def test_a_server_that_never_answers_takes_no_longer_than_its_timeout() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/T0KEN"
        with pytest.raises(InfrastructureError, match="timed out"):
            webhook.post(url, PAYLOAD, attempts=1, timeout_s=0.05)
