"""Questions over HTTP: kept connections, TLS, proxies, and words for what goes wrong."""

import socket
import ssl
import subprocess
import threading

import pytest

from orchestrator.errors import InputError
from orchestrator.loadgen.api import Api, Reply
from orchestrator.loadgen.probe import probe
from tests.loadgen.fake_api import FakeApi, serving


def reply(body):
    return Reply(400, {}, body)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "too\\n long", "code": 1}}', "too long"),
        (b'{"error": "too long"}', "too long"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b"<html>\n502 </html>", "<html> 502 </html>"),
        (b"", ""),
        (b"[1]", "[1]"),
    ],
)
def test_the_servers_own_words_in_one_line(body, said):
    assert reply(body).said() == said


def test_a_kept_connection_that_was_closed_is_opened_again():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connections = []

        def serve():
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                connections.append(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        api = Api({}, 10)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        assert [api.get(url).status, api.get(url).status] == [200, 200]
        thread.join()
        assert len(connections) == 2


def test_what_is_not_http_is_said():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"SSH-2.0-OpenSSH_9\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(InputError, match="does not answer as HTTP does"):
            Api({}, 10).get(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        thread.join()


def test_a_proxy_is_used_with_its_password_but_never_for_loopback(monkeypatch):
    with serving(FakeApi(root="http://far.invalid/v1", engine=None, tokenizes=False)) as proxy:
        address = proxy.url.removesuffix(proxy.root).replace("//", "//user:p%40ss@")
        monkeypatch.setenv("http_proxy", address)
        assert probe("http://far.invalid/v1").model == "m"
        assert proxy.headers[0]["proxy-authorization"] == "Basic dXNlcjpwQHNz"
        assert proxy.headers[0]["host"] == "far.invalid"
        asked = len(proxy.asked)
        with serving(FakeApi()) as near:
            assert probe(near.url).model == "m"
        monkeypatch.setenv("no_proxy", "far.invalid")
        with pytest.raises(InputError, match="has no address"):
            probe("http://far.invalid/v1")
        assert len(proxy.asked) == asked


def test_tls_with_a_certificate_that_is_trusted_and_one_that_is_not(tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
               "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(FakeApi(), context) as api:
        assert api.url.startswith("https://")
        with pytest.raises(InputError, match=r"certificate of https://.* is not trusted: self-signed"):
            probe(api.url)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert probe(api.url).engine == "vllm"
