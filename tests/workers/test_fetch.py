"""Downloads through the real hub client, from a server on localhost that answers as the hub documents it."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator.controller.execute import run_worker
from orchestrator.errors import InputError

pytest.importorskip("huggingface_hub")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILE = b'{"model_type": "llama"}'


class FakeHub(BaseHTTPRequestHandler):
    """One model, org/model, with one file at one commit; anything else is 404 with the hub's own error code."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        if not path.startswith(("/api/models/org/model", "/org/model/")):
            return self.send(404, b"", body, {"X-Error-Code": "RepoNotFound"})
        if "nope" in path:
            return self.send(404, b"", body, {"X-Error-Code": "RevisionNotFound"})
        if path.startswith("/api/models/org/model/tree"):
            entry = {"type": "file", "path": "config.json", "size": len(FILE), "oid": "e" * 40}
            return self.send(200, json.dumps([entry]).encode(), body)
        if path.startswith("/api/models/org/model"):
            found = {"id": "org/model", "sha": COMMIT, "siblings": [{"rfilename": "config.json"}]}
            return self.send(200, json.dumps(found).encode(), body)
        return self.send(200, FILE, body, {"ETag": '"abc"', "X-Repo-Commit": COMMIT})

    def send(self, status: int, content: bytes, body: bool, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    server.shutdown()


def _fetch(folder: Path, repository: str, revision: str | None) -> dict[str, Any]:
    request = {"repository": repository, "revision": revision, "kind": "model"}
    return run_worker("fetch", request, folder, lambda kind, /, **data: None)


def test_a_model_is_downloaded_at_its_commit(hub: None, tmp_path: Path) -> None:
    path = Path(_fetch(tmp_path, "org/model", COMMIT)["path"])
    assert path.name == COMMIT
    assert (path / "config.json").read_bytes() == FILE


@pytest.mark.parametrize(
    ("repository", "revision", "said"),
    [
        ("org/model", "nope", "the hub's model 'org/model' has no revision 'nope'"),
        ("org/other", None, "the hub has no model 'org/other' that this token may read"),
        ("a/b/c", None, "'a/b/c' is neither a path here nor a name of the hub"),
    ],
)
def test_what_the_hub_does_not_have_is_bad_input(
    hub: None, tmp_path: Path, repository: str, revision: str | None, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        _fetch(tmp_path, repository, revision)
