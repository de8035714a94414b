"""A small OpenAI-compatible server for tests of what is asked before a load: models, engine, tokens, one token."""

import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TEMPLATE_TOKENS = 11
_PIECES = re.compile(r" ?[A-Za-z]+|(\d)\1?|\s|.")


def pieces(text: str) -> int:
    """A word with its space is one token, a long word two; equal neighbours among digits are one."""
    return sum(2 if len(found[0]) > 7 else 1 for found in _PIECES.finditer(text))


def single_digits(text: str) -> int:
    """As `pieces`, but every digit is one token."""
    return sum(2 if len(found[0]) > 7 else 1 for found in re.finditer(r" ?[A-Za-z]+|\s|.", text))


@dataclass
class FakeApi:
    """What the server is like, and what it was asked."""

    engine: str | None = "vllm"
    models: list[dict[str, Any]] = field(default_factory=lambda: [{"id": "m", "max_model_len": 4096}])
    count: Callable[[str], int] = pieces
    key: str | None = None
    root: str = "/v1"
    lists_models: bool = True
    tokenizes: bool = True
    refuses: tuple[str, ...] = ()
    """Keys of a body that are answered with 400."""
    chat: int = 200
    stream: Callable[[int], bytes] | None = None
    """The whole answer, of the prompt tokens; default: a right one."""
    asked: list[tuple[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def get(self, path: str) -> tuple[int, Any]:
        owner = {"vllm": "vllm", "llama_cpp": "llamacpp", "tensorrt_llm": "tensorrt_llm"}.get(self.engine or "", "me")
        if path == f"{self.root}/models" and self.lists_models:
            return 200, {"object": "list", "data": [{"owned_by": owner, **model} for model in self.models]}
        if path == "/version" and self.engine in ("vllm", "tensorrt_llm"):
            return 200, {"version": "0.32.0"}
        if path == "/metrics" and self.engine == "vllm":
            return (
                200,
                b'# x\nvllm:cache_config_info{block_size="16",engine="0",enable_prefix_caching="True",q="None"} 1\n',
            )
        if path == "/props" and self.engine == "llama_cpp":
            slots = {"total_slots": 4, "model_path": "/m.gguf", "default_generation_settings": {"n_ctx": 2048}}
            return 200, {**slots, "build_info": "b1-abc"}
        return 404, {"error": {"message": "Not Found"}}

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/tokenize" and self.tokenizes and self.engine == "vllm":
            return 200, {"count": self.count(body["prompt"]), "tokens": [], "max_model_len": 1}
        if path == "/tokenize" and self.tokenizes and self.engine == "llama_cpp":
            return 200, {"tokens": list(range(self.count(body["content"])))}
        if path not in (f"{self.root}/chat/completions", f"{self.root}/completions"):
            return 404, {"error": {"message": "Not Found"}}
        if refused := [key for key in self.refuses if key in body]:
            return 400, {"error": {"message": f"Unrecognized request argument supplied: {refused[0]}"}}
        if "messages" in body and self.chat != 200:
            return self.chat, {"error": {"message": "no chat template"}}
        return 200, (self.stream or _stream)(self.prompt_tokens(body))

    def prompt_tokens(self, body: dict[str, Any]) -> int:
        """What a real engine would count, with its template."""
        if "prompt" in body:
            return 1 + self.count(body["prompt"])
        return sum(TEMPLATE_TOKENS + self.count(message["content"]) for message in body["messages"])


def _stream(prompt_tokens: int) -> bytes:
    delta = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "length"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": 1}}
    return "".join(f"data: {json.dumps(event)}\n\n" for event in (delta, usage)).encode() + b"data: [DONE]\n\n"


@contextmanager
def serving(api: FakeApi, tls: ssl.SSLContext | None = None) -> Iterator[FakeApi]:
    """Serves it on loopback; `api.url` is its base URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: Any) -> None:
            api.asked.append((self.path, body))
            api.headers.append({name.lower(): value for name, value in self.headers.items()})
            status, said = api.get(self.path) if body is None else api.post(self.path, body)
            if api.key is not None and self.headers.get("Authorization") != f"Bearer {api.key}":
                status, said = 401, {"error": {"message": "Unauthorized"}}
            payload = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    api.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}{api.root}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
