"""The mock server does what its log says, over real connections."""

import http.client
import json
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mock_server import MockServer

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="the mock server is C for Linux"
)
MS = 1_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the program is built once."""
    return tmp_path_factory.mktemp("mock")


@contextmanager
def connected(server: MockServer) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    yield connection
    connection.close()


def body(**more: object) -> str:
    asked = {"model": "mock-model", "messages": [{"role": "user", "content": 'say "two words" now'}], "max_tokens": 3}
    return json.dumps(asked | {"stream": True, "stream_options": {"include_usage": True}} | more)


def post(asked: str) -> bytes:
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s"
    return (head % (len(asked), asked)).encode()


def events(text: str) -> list[dict[str, object]]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def chat(connection: http.client.HTTPConnection, asked: str, **headers: str) -> http.client.HTTPResponse:
    connection.request("POST", "/v1/chat/completions", asked, headers)
    return connection.getresponse()


def test_a_chat_stream_has_vllms_form(folder: Path) -> None:
    with MockServer(folder, unlimited=True) as server, connected(server) as connection:
        answer = chat(connection, body())
        chunks = events(answer.read().decode())
    assert answer.headers["x-mock-request"] == "1"
    assert {chunk["id"] for chunk in chunks} == {"chatcmpl-0000000000000001"}
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert [delta["content"] for delta in deltas[1:]] == ["[r0000000001]", " stone", " under"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None, None, None, "length"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == {"prompt_tokens": 5, "total_tokens": 8, "completion_tokens": 3}


def test_usage_comes_only_where_it_is_asked_for(folder: Path) -> None:
    with MockServer(folder, unlimited=True) as server, connected(server) as connection:
        chunks = events(chat(connection, body(stream_options={"include_usage": False})).read().decode())
    assert all("usage" not in chunk for chunk in chunks)


def test_completions_stream_text(folder: Path) -> None:
    with MockServer(folder, unlimited=True) as server, connected(server) as connection:
        asked = {"prompt": [7, 8, 9], "max_tokens": 2, "stream": True, "stream_options": {"include_usage": True}}
        connection.request("POST", "/v1/completions", json.dumps(asked))
        chunks = events(connection.getresponse().read().decode())
    assert [chunk["choices"][0]["text"] for chunk in chunks[:-1]] == ["[r0000000001]", " stone"]
    assert chunks[-1]["usage"]["prompt_tokens"] == 3


def test_an_answer_without_stream_comes_whole_at_its_last_tokens_time(folder: Path) -> None:
    with MockServer(folder, ttft_ms=20, itl_ms=10) as server, connected(server) as connection:
        found = json.loads(chat(connection, body(stream=False)).read())
    assert found["choices"][0]["message"]["content"] == "[r0000000001] stone under"
    assert found["usage"]["completion_tokens"] == 3
    (answer,) = server.log()
    assert not answer.stream
    assert answer.end_ns - answer.last_ns >= 40 * MS


def test_tokens_leave_at_their_times_and_the_log_knows_when(folder: Path) -> None:
    with MockServer(folder, ttft_ms=30, itl_ms=5) as server, connected(server) as connection:
        before = time.time_ns()
        chat(connection, body(max_tokens=20), **{"X-Request-Id": "mine"}).read()
        after = time.time_ns()
    (answer,) = server.log()
    assert answer.kernel_time
    assert before <= answer.first_ns <= answer.last_ns <= answer.times[0] <= answer.times[-1] <= after
    assert len(answer.times) == answer.asked == 20
    assert all(at - answer.last_ns >= (30 + 5 * token) * MS for token, at in enumerate(answer.times))
    assert answer.ttft_ns == answer.times[0] - answer.last_ns
    assert sum(answer.itl_ns) == answer.times[-1] - answer.times[0]
    assert answer.request_id == "mine"
    assert answer.complete


def test_each_token_is_a_chunk_of_http(folder: Path) -> None:
    with (
        MockServer(folder, unlimited=True) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw,
    ):
        raw.sendall(post(body(max_tokens=4)))
        text = b""
        while not text.endswith(b"0\r\n\r\n"):
            text += raw.recv(65536)
    rest, chunks = text.partition(b"\r\n\r\n")[2], []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        chunks.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    assert [chunk.count(b"data: ") for chunk in chunks] == [1] * 7 + [0]
    assert [len(chunk) for chunk in chunks[1:5]] == pytest.approx([250] * 4, abs=15)


def test_it_answers_what_clients_ask_before_they_begin(folder: Path) -> None:
    with MockServer(folder, model="tiny") as server, connected(server) as connection:
        found = {}
        for method, path in [("HEAD", "/health"), ("GET", "/v1/models"), ("GET", "/metrics"), ("GET", "/v2")]:
            connection.request(method, path)
            answer = connection.getresponse()
            found[path] = (answer.status, answer.read().decode())
        connection.request("POST", "/tokenize", json.dumps({"prompt": "one two three"}))
        count = json.loads(connection.getresponse().read())["count"]
        refused = chat(connection, body())
        message = refused.read().decode()
    assert found["/health"] == (200, "")
    assert json.loads(found["/v1/models"][1])["data"][0]["id"] == "tiny"
    assert "vllm:generation_tokens_total" in found["/metrics"][1]
    assert found["/v2"][0] == 404
    assert count == 3
    assert (refused.status, "mock-model" in message) == (404, True)


def test_a_chunked_body_is_read(folder: Path) -> None:
    with MockServer(folder, unlimited=True) as server, connected(server) as connection:
        asked = body().encode()
        connection.request("POST", "/v1/chat/completions", iter([asked[:9], asked[9:]]), encode_chunked=True)
        chunks = events(connection.getresponse().read().decode())
    assert len(chunks) == 5


def test_a_client_may_wait_for_100_continue(folder: Path) -> None:
    asked = body().encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n"
    with (
        MockServer(folder, unlimited=True) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw,
    ):
        raw.sendall(head % len(asked))
        assert raw.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.sendall(asked)
        assert raw.recv(15) == b"HTTP/1.1 200 OK"
    (answer,) = server.log()
    assert answer.first_ns < answer.last_ns


def test_requests_sent_at_once_are_answered_in_order(folder: Path) -> None:
    with (
        MockServer(folder, unlimited=True) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw,
    ):
        raw.sendall(post(body(max_tokens=1)) * 5)
        text = b""
        while text.count(b"[DONE]") < 5:
            text += raw.recv(65536)
    positions = [text.index(b"[r%010d]" % number) for number in range(1, 6)]
    assert positions == sorted(positions)


def test_a_connection_is_closed_where_that_is_asked_for(folder: Path) -> None:
    with MockServer(folder, unlimited=True) as server, connected(server) as connection:
        answer = chat(connection, body(), Connection="close")
        answer.read()
        assert answer.headers["connection"] == "close"
        assert answer.isclosed()


def test_a_client_that_leaves_is_in_the_log_with_what_it_got(folder: Path) -> None:
    with MockServer(folder, ttft_ms=0, itl_ms=20) as server:
        with connected(server) as connection:
            chat(connection, body(max_tokens=10_000)).readline()
        with connected(server) as connection:
            chat(connection, body(max_tokens=3)).read()
    gone, served = server.log()
    assert (gone.complete, served.complete) == (False, True)
    assert 1 <= len(gone.times) < 10


def test_nothing_is_answered_during_a_stall_but_arrivals_are_known(folder: Path) -> None:
    with (
        MockServer(folder, ttft_ms=0, itl_ms=0, options=("--stall", "1,0.3")) as server,
        connected(server) as one,
        connected(server) as two,
    ):
        one.request("POST", "/v1/chat/completions", body())
        two.request("POST", "/v1/chat/completions", body())
        one.getresponse().read()
        two.getresponse().read()
    ((begun, ended),) = server.report["stalls"]
    assert ended - begun >= 300 * MS
    first, second = sorted(server.log(), key=lambda answer: answer.number)
    assert second.last_ns < ended - 200 * MS
    assert second.times[0] >= ended
    assert first.times[-1] < begun or first.times[0] >= ended


def test_a_thousand_streams_at_once(folder: Path) -> None:
    with MockServer(folder, ttft_ms=300, itl_ms=1) as server:
        streams = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(1000)]
        for stream in streams:
            stream.sendall(post(body(max_tokens=5)))
        for stream in streams:
            text = b""
            while not text.endswith(b"0\r\n\r\n"):
                text += stream.recv(65536)
            stream.close()
    log = server.log()
    assert len(log) == 1000
    assert all(answer.complete and answer.kernel_time for answer in log)
    assert server.report["tokens"] == 5000


def test_a_slow_reader_gets_every_token(folder: Path) -> None:
    with MockServer(folder, unlimited=True) as server:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(20)
        raw.connect(("127.0.0.1", server.port))
        raw.sendall(post(body(max_tokens=40_000)))
        with connected(server) as quick:  # takes its turns with the slow one, which is blocked when this has all
            chat(quick, body(max_tokens=40_000)).read()
        text = bytearray()
        while not text.endswith(b"0\r\n\r\n"):
            text += raw.recv(65536)
        raw.close()
    assert text.count(b'"token_ids"') == 40_001
    assert server.report["blocked_sends"] > 0


def test_two_processes_can_share_a_port(folder: Path) -> None:
    with (
        MockServer(folder / "one", unlimited=True, options=("--shared",)) as one,
        MockServer(folder / "two", unlimited=True, options=("--shared", "--port", str(one.port))) as two,
    ):
        for _ in range(60):
            with connected(one) as connection:
                chat(connection, body(max_tokens=1)).read()
    assert min(len(one.log()), len(two.log())) > 0
    assert len(one.log()) + len(two.log()) == 60
