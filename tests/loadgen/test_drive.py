"""The load generator against servers on localhost: what it measures, and what it calls each failure."""

import contextlib
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from orchestrator.errors import InputError
from orchestrator.loadgen.drive import load_records, measure, save_records
from orchestrator.loadgen.load import Load, Measurement
from orchestrator.loadgen.record import failure
from orchestrator.loadgen.requests import NONCE, Request, answer_mark
from orchestrator.testing import answer, serving
from tests.loadgen.raw_server import (
    DONE,
    END,
    FINISH,
    GOOD,
    HEAD,
    USAGE,
    chunk,
    delta,
    event,
    raw_server,
    reset,
)

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": f"{NONCE.decode()} hi"}]}).encode()


def _measured(url: str, requests: list[Request] | None = None, **settings: object) -> Measurement:
    given = {"concurrency": 1, "num_requests": 3, **settings}
    return measure(Load(url=url, **given), requests or [Request(BODY, prompt=0)])  # type: ignore[arg-type]


def _failures(measurement: Measurement) -> dict[str | None, int]:
    return dict(Counter(failure(record) for record in measurement.records))


def test_a_closed_loop_measures_what_the_server_sent():
    seen = []
    with serving(answer("He", "llo", "!")) as engine:
        load = Load(url=engine.url, concurrency=4, num_requests=40, warmup_requests=6, workers=2)
        measured = measure(load, [Request(BODY, prompt=0), Request(BODY, prompt=1)], on_progress=seen.append)
    assert _failures(measured) == {None: 46}
    assert sum(record.warmup for record in measured.records) == 6
    assert sorted(record.index for record in measured.records) == list(range(46))
    for record in measured.records:
        assert record.sent <= record.first_chunk <= record.content[0] <= record.content[-1] <= record.ended
        assert (record.prompt_tokens, record.completion_tokens, len(record.content)) == (7, 3, 3)
        assert record.prompt == record.index % 2
    assert measured.start <= measured.end
    assert min(r.sent for r in measured.records if not r.warmup) >= measured.start
    assert seen[-1].ended == 40
    assert len({body["messages"][0]["content"] for body in engine.bodies}) == 46
    assert len(measured.workers) == 2


def test_an_open_loop_counts_from_the_intended_time():
    with serving(answer("a")) as engine:
        requests = [Request(BODY, at=number / 200, prompt=number) for number in range(40)]
        measured = _measured(engine.url, requests, concurrency=None, num_requests=None)
    assert _failures(measured) == {None: 40}
    first = min(record.intended for record in measured.records)
    assert sorted(r.intended - first for r in measured.records) == [n * 5_000_000 for n in range(40)]
    assert all(record.sent >= record.intended for record in measured.records)


def test_a_stalled_server_does_not_delay_what_is_sent():
    """Coordinated omission: the requests due during a stall are sent, and their latency counts from then."""
    go = threading.Event()

    def handler(sock: socket.socket, number: int) -> None:
        if number == 9:
            go.set()
        go.wait(10)
        sock.sendall(GOOD)

    with raw_server(handler) as url:
        requests = [Request(BODY, at=number / 100) for number in range(10)]
        measured = _measured(url, requests, concurrency=None, num_requests=None)
    assert _failures(measured) == {None: 10}  # the tenth could only arrive because nobody waited for the first
    assert min(record.content[0] - record.sent for record in measured.records if record.index == 0) >= 80_000_000


def test_a_kept_connection_is_used_again():
    connections = set()

    def handler(sock: socket.socket, number: int) -> None:
        connections.add(sock.getpeername())
        sock.sendall(GOOD)

    with raw_server(handler) as url:
        measured = _measured(url, num_requests=5)
    assert len(connections) == 1
    assert [record.connect is not None for record in measured.records] == [True, False, False, False, False]


def test_a_kept_connection_that_the_server_closes_is_replaced_and_said():
    def handler(sock: socket.socket, number: int) -> bool:
        if number % 2 == 0:
            sock.sendall(GOOD)
            return False
        return True  # it had promised to keep the connection

    with raw_server(handler) as url:
        measured = _measured(url, num_requests=3)
    assert _failures(measured) == {None: 3}
    assert sum(record.reconnected for record in measured.records) == 2


CUT = HEAD + delta("a")
ABORT = b'{"choices":[{"delta":{},"finish_reason":"abort"}]}'


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("disconnected", CUT),
        ("disconnected", CUT[:-9]),
        ("cut_short", CUT + END),
        ("cut_short", CUT + chunk(b'data: {"choices":[{"delta"') + END),
        ("no_usage", CUT + FINISH + DONE + END),
        ("no_done", CUT + FINISH + USAGE + END),
        ("finish_abort", CUT + event(ABORT) + USAGE + DONE + END),
        ("server_error", CUT + event(b'{"error":{"message":"out of memory"}}') + END),
        ("malformed", CUT + event(b"{oops") + END),
        ("malformed", b"SSH-2.0-OpenSSH\r\n\r\n"),
        ("malformed", b'HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n{"choices": [{}]}'),
        ("http_503", b"HTTP/1.1 503 Busy\r\nRetry-After: 2\r\ncontent-length: 4\r\n\r\nbusy"),
        ("http_429", b"HTTP/1.1 429 Slow\r\nretry-after: 9\r\ncontent-length: 4\r\n\r\nslow"),
        ("http_404", b"HTTP/1.1 404 No\r\nconnection: close\r\n\r\nno such model"),
    ],
)
def test_each_failure_has_its_own_name(kind: str, sent: bytes):
    def handler(sock: socket.socket, number: int) -> bool:
        sock.sendall(sent if number == 1 else GOOD)
        return number == 1

    with raw_server(handler) as url:
        measured = _measured(url)
    assert _failures(measured) == {None: 2, kind: 1}
    (bad,) = [record for record in measured.records if failure(record)]
    assert len(bad.content) == sent.startswith(CUT)  # what had arrived is kept
    if kind in ("http_503", "http_429"):
        assert bad.retry_after_s == (2 if kind == "http_503" else 9)
        assert bad.detail in ("busy", "slow")


def test_a_server_that_never_says_done_is_complete_without_it_and_no_less_is_asked_of_it():
    answers = {1: CUT + END, 2: CUT + FINISH + END}

    def handler(sock: socket.socket, number: int) -> None:
        sock.sendall(answers.get(number, CUT + FINISH + USAGE + END))

    with raw_server(handler) as url:
        assert _failures(_measured(url, says_done=False)) == {None: 1, "cut_short": 1, "no_usage": 1}


def test_a_reset_inside_an_answer_is_a_broken_connection():
    def handler(sock: socket.socket, number: int) -> bool:
        sock.sendall(CUT)
        reset(sock)
        return True

    with raw_server(handler) as url:
        assert _failures(_measured(url)) == {"disconnected": 3}


def test_characters_cut_by_a_packet_are_put_together():
    answer_bytes = HEAD + delta("h\u00e9llo \u6f22") + FINISH + USAGE + DONE + END

    def handler(sock: socket.socket, number: int) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(answer_bytes)):
            sock.sendall(answer_bytes[at : at + 1])

    with raw_server(handler) as url:
        measured = _measured(url, keep_text=True)
    assert _failures(measured) == {None: 3}
    assert {record.text for record in measured.records} == {"h\u00e9llo \u6f22"}


def test_a_stall_and_a_slow_answer_end_by_their_own_limits():
    forever = threading.Event()

    def silent(sock: socket.socket, number: int) -> None:
        sock.sendall(CUT)
        forever.wait(20)

    def drip(sock: socket.socket, number: int) -> None:
        sock.sendall(HEAD)
        with contextlib.suppress(OSError):
            while not forever.wait(0.02):
                sock.sendall(delta("a"))

    with raw_server(silent) as url:
        assert _failures(_measured(url, num_requests=1, stall_s=0.2)) == {"stall": 1}
    with raw_server(drip) as url:
        measured = _measured(url, num_requests=1, timeout_s=0.4)
    assert _failures(measured) == {"timeout": 1}
    assert len(measured.records[0].content) > 1
    forever.set()


def test_no_server_and_no_name():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    assert _failures(_measured(f"http://127.0.0.1:{port}/v1")) == {"connect": 3}
    measured = _measured("http://no-such-host.invalid/v1")
    assert _failures(measured) == {"dns": 3}
    assert "no-such-host.invalid" in measured.records[0].detail


def test_a_server_that_reads_slowly_gets_the_whole_request():
    body, got = BODY.replace(b" hi", b" hi" * 2_000_000), []

    def handler(sock: socket.socket, number: int) -> bool:
        total = 0
        while total < len(body):
            total += len(sock.recv(20_000))
        got.append(total)
        sock.sendall(GOOD)
        return True

    with raw_server(handler, read=False) as url:
        assert _failures(_measured(url, [Request(body)], num_requests=1)) == {None: 1}
    assert got[0] >= len(body)


_LIMITED = """
import json, resource, subprocess, threading
from collections import Counter
from tests.loadgen.raw_server import GOOD, raw_server
from tests.loadgen.test_drive import BODY, Load, Request, failure, measure

everybody = threading.Barrier(40)  # so that as many connections are needed at once

def handler(sock, number):
    try:
        everybody.wait(1)
    except threading.BrokenBarrierError:
        pass
    sock.sendall(GOOD)

with raw_server(handler) as url:
    start = subprocess.Popen  # the limit is the client process's alone
    limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))
    subprocess.Popen = lambda *given, **named: start(*given, **named, preexec_fn=limit)
    found = measure(Load(url=url, concurrency=80, num_requests=80), [Request(BODY)])
print(json.dumps(Counter(str(failure(record)) for record in found.records)))
"""


def test_without_a_free_file_descriptor_the_request_fails_and_the_others_go_on():
    done = subprocess.run([sys.executable, "-c", _LIMITED], capture_output=True, text=True, timeout=60)
    counts = json.loads(done.stdout or "{}")
    assert counts.keys() == {"None", "client_files"}, done.stderr
    assert sum(counts.values()) == 80
    assert counts["None"] >= 40


def test_turns_of_a_conversation_carry_the_servers_own_answers():
    with serving(answer("one ", '"two"')) as engine:
        later = json.dumps(
            {"messages": [{"role": "user", "content": NONCE.decode()}, {"role": "assistant", "content": "@"}]}
        ).encode()
        later = later.replace(b'"@"', b'"' + answer_mark(0) + b'"')
        turns = [Request(BODY, session=0, prompt=0), Request(later, session=0, turn=1, prompt=1)]
        measured = _measured(engine.url, turns, num_requests=None)
    assert _failures(measured) == {None: 2}
    assert engine.bodies[1]["messages"][1]["content"] == 'one "two"'
    nonces = [body["messages"][0]["content"][:17] for body in engine.bodies]
    assert nonces[0] == nonces[1]


def test_later_turns_of_a_failed_conversation_are_not_sent():
    with raw_server(lambda sock, number: bool(sock.sendall(CUT)) or True) as url:
        turns = [Request(BODY, session=0), Request(BODY, session=0, turn=1)]
        assert _failures(_measured(url, turns, num_requests=None)) == {"disconnected": 1, "not_sent": 1}


def test_stopping_keeps_what_was_measured():
    with serving(answer("a")) as engine:
        ended = []
        load = Load(url=engine.url, concurrency=2, duration_s=60)
        measured = measure(
            load,
            [Request(BODY)],
            on_progress=lambda progress: ended.append(progress.ended),
            stop=lambda: bool(ended) and ended[-1] > 5,
        )
    assert len(measured.records) > 5
    assert set(_failures(measured)) == {None}


def test_an_empty_workload_and_a_load_without_concurrency_are_refused():
    with pytest.raises(InputError, match="holds no request"):
        measure(Load(url="http://localhost/v1", concurrency=1), [])
    with pytest.raises(InputError, match="concurrency"):
        measure(Load(url="http://localhost/v1"), [Request(BODY)])


def test_records_are_read_back_as_they_were(tmp_path: Path):
    with serving(answer("a", "b")) as engine:
        measured = _measured(engine.url, keep_text=True)
    save_records(tmp_path / "cell.records", measured)
    assert load_records(tmp_path / "cell.records") == measured
    (tmp_path / "other").write_text("something else")
    with pytest.raises(InputError, match="cannot read the records"):
        load_records(tmp_path / "other")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
               "-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def test_tls_takes_the_portable_path(certificate: Path, monkeypatch: pytest.MonkeyPatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    with raw_server(lambda sock, number: sock.sendall(GOOD) or number == 1, tls=context) as url:
        measured = _measured(url, keep_text=True)
    assert _failures(measured) == {None: 3}
    assert {record.text for record in measured.records} == {"ab"}
    assert not measured.workers[0].kernel_timestamps


def test_a_proxy_takes_the_portable_path(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def handler(sock: socket.socket, number: int) -> None:
        asked.append(number)
        sock.sendall(GOOD)

    with raw_server(handler) as url:
        monkeypatch.setenv("http_proxy", url.removesuffix("/v1"))
        measured = _measured("http://model.example/v1", num_requests=2)
    assert _failures(measured) == {None: 2}
    assert len(asked) == 2


def test_the_portable_path_says_of_a_turn_that_was_not_sent_what_it_was(monkeypatch: pytest.MonkeyPatch):
    turns = [Request(BODY, session=0, model="a"), Request(BODY, session=0, turn=1, prompt=3, model="a")]
    with raw_server(lambda sock, number: bool(sock.sendall(CUT)) or True) as url:
        monkeypatch.setenv("http_proxy", url.removesuffix("/v1"))
        measured = _measured("http://model.example/v1", turns, num_requests=None, warmup_requests=2)
    [lost] = [record for record in measured.records if record.error == "not_sent"]
    assert (lost.prompt, lost.turn, lost.model, lost.warmup) == (3, 1, "a", True)


def test_no_proxy_stands_before_the_own_machine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serving(answer("a")) as engine:
        measured = _measured(engine.url)
    assert set(_failures(measured)) == {None}
    assert measured.workers[0].kernel_timestamps == (sys.platform == "linux")


def test_the_warm_up_is_as_long_as_asked_and_every_request_of_an_open_loop_is_in_the_window():
    with serving(answer("a")) as engine:
        closed = _measured(engine.url, concurrency=4, num_requests=10, warmup_requests=2)
        arrivals = [Request(BODY, at=number / 100) for number in range(15)]
        opened = _measured(engine.url, arrivals, concurrency=None, num_requests=None)
    assert sum(record.warmup for record in closed.records) == 2
    assert all(opened.start <= record.sent <= opened.end for record in opened.records)
