"""Finds out what a server is before it is put under load: its models, its engine, whether it streams with usage.

    server = probe("http://127.0.0.1:8000", model=None, headers={"Authorization": "Bearer ..."})

A handful of small requests, one of which generates one token. Everything wrong is an InputError that says what to do.
"""

import http
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from orchestrator.errors import InputError
from orchestrator.loadgen.api import Api, Reply
from orchestrator.plugins import nearest

Endpoint = Literal["chat", "completions"]
PATHS: Mapping[Endpoint, str] = {"chat": "/chat/completions", "completions": "/completions"}

_FIRST_TOKEN_TIMEOUT_S = 120.0
"""A server that has just started may compile its kernels at the first request."""
_TEXT = "Hello"
_OWNERS = {"vllm": "vllm", "llamacpp": "llama_cpp", "tensorrt_llm": "tensorrt_llm", "sglang": "sglang"}
_REFUSED = (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN)
_NO_SUCH = (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.METHOD_NOT_ALLOWED)
_INVALID = (http.HTTPStatus.BAD_REQUEST, http.HTTPStatus.UNPROCESSABLE_ENTITY)


@dataclass(frozen=True, eq=False)
class Server:
    """An OpenAI-compatible server as `probe` found it."""

    url: str
    """Base URL, with its /v1."""
    model: str
    """What requests name."""
    models: Sequence[str] = ()
    """All that the server lists, adapters included; empty where it has no list."""
    engine: str | None = None
    """vllm | llama_cpp | tensorrt_llm | sglang; None: not known."""
    engine_version: str | None = None
    endpoint: Endpoint = "chat"
    """Completions where the model has no chat template."""
    accepts_ignore_eos: bool = False
    """The server does not refuse `ignore_eos`."""
    says_done: bool = True
    """Its streams end with [DONE]; those of transformers' own server just end."""
    request_fields: Mapping[str, Any] = field(default_factory=dict)
    """What each request must say besides."""
    template_tokens: int | None = None
    """Prompt tokens beyond those of the text itself, such as the chat template's."""
    tokenize: Callable[[str], int] | None = None
    """Tokens of a text by the server's own tokenizer, without special tokens; None where it has no such endpoint."""
    prompt_tokens: Callable[[Endpoint, str], int | None] | None = None
    """Prompt tokens that the usage of a one-token request with this text reports; None: it was refused."""
    engine_args: dict[str, Any] = field(default_factory=dict)
    """What the server tells of its own settings."""
    max_model_len: int | None = None
    """Tokens of prompt and answer together."""


def probe(
    url: str,
    *,
    model: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 10,
    endpoint: Endpoint | None = None,
    request_fields: Mapping[str, Any] | None = None,
) -> Server:
    """What the server at `url` (with or without /v1) is; `endpoint` insists on one of the two. `request_fields` is what
    each request must say besides, such as the adapter that answers.

    Raises InputError: no server there, not an OpenAI API, a key is needed, unknown model, no stream with usage.
    """
    api = Api(headers or {}, timeout_s)
    try:
        base, cards, reply = _find(api, url, named=model is not None)
        name = _model(base, cards, model)
        card = next((card for card in cards if card["id"] == name), {})
        engine, version, args, longest = _engine(api, _root(base), card, reply)
        tokenize = _tokenizer(api, _root(base), engine, name)
        extra = dict(request_fields or {})
        first = _first_token(api, base, name, endpoint, extra)
    finally:
        api.close()
    return Server(
        url=base,
        model=name,
        models=tuple(card["id"] for card in cards),
        engine=engine,
        engine_version=version,
        endpoint=first.endpoint,
        accepts_ignore_eos=first.accepts_ignore_eos,
        says_done=first.says_done,
        request_fields=extra,
        template_tokens=first.prompt_tokens - tokenize(_TEXT) if tokenize else None,
        tokenize=tokenize,
        prompt_tokens=lambda where, text: _prompt_tokens(api, base, where, _one_token(name, where, text) | extra),
        engine_args=args,
        max_model_len=longest,
    )


def bases(url: str) -> list[str]:
    """The base URLs that a user can have meant, likeliest first."""
    text = (url.strip() if "://" in url else f"http://{url.strip()}").rstrip("/")
    for path in (*PATHS.values(), "/models"):
        text = text.removesuffix(path)
    if urlsplit(text).scheme not in ("http", "https") or not urlsplit(text).hostname:
        raise InputError(f"{url!r} is no address of a server", next_step="write it like http://127.0.0.1:8000/v1")
    versioned = re.search(r"/v\d+(beta)?(/|$)", urlsplit(text).path)
    return [text] if versioned else [f"{text}/v1", text]


def _find(api: Api, url: str, *, named: bool) -> tuple[str, list[dict[str, Any]], Reply]:
    """The base URL whose /models answers, and its models. Without a list a named model is taken on trust."""
    replies = []
    for base in bases(url):
        reply = api.get(f"{base}/models")
        _check_allowed(base, reply)
        found = reply.json()
        if reply.ok and isinstance(found, dict) and isinstance(found.get("data"), list):
            cards = [card for card in found["data"] if isinstance(card, dict) and isinstance(card.get("id"), str)]
            return base, cards, reply
        replies.append((base, reply))
    base, reply = replies[0]
    if named and reply.status in _NO_SUCH:
        return base, [], reply
    raise InputError(
        f"not an OpenAI API at {url}: GET {base}/models answered {reply.status}: {reply.said() or 'nothing'}",
        next_step="give the base URL of the API, such as http://127.0.0.1:8000/v1, and the model if it lists none",
    )


def _check_allowed(base: str, reply: Reply) -> None:
    if reply.status in _REFUSED:
        raise InputError(
            f"the server at {base} wants a key ({reply.status}): {reply.said()}",
            next_step="set the API key, so that requests carry `Authorization: Bearer KEY`",
        )
    if reply.status == http.HTTPStatus.SERVICE_UNAVAILABLE:
        raise InputError(f"the server at {base} is not ready (503): {reply.said()}", next_step="try again in a while")


def _model(base: str, cards: Sequence[Mapping[str, Any]], wanted: str | None) -> str:
    names = [str(card["id"]) for card in cards]
    if wanted is not None:
        if names and wanted not in names:
            raise InputError(f"the server at {base} has no model {wanted!r}; it has {', '.join(names)}",
                             next_step=nearest(wanted, names))  # fmt: skip
        return wanted
    # an adapter names its base; what is meant is the base
    whole = [str(card["id"]) for card in cards if not card.get("parent")] or names
    if len(whole) != 1:
        held = f"has {len(whole)} models: {', '.join(whole)}" if whole else "lists no model"
        raise InputError(f"the server at {base} {held}", next_step="name the model to measure")
    return whole[0]


def _root(base: str) -> str:
    """Where engines have their own endpoints: without /v1."""
    return re.sub(r"/v\d+$", "", base)


def _engine(
    api: Api, root: str, card: Mapping[str, Any], models: Reply
) -> tuple[str | None, str | None, dict[str, Any], int | None]:
    """Engine, version, what it tells of its settings, and its longest context."""
    engine = _OWNERS.get(str(card.get("owned_by")))
    if engine is None and models.headers.get("server") == "llama.cpp":
        engine = "llama_cpp"
    if engine == "llama_cpp":
        return engine, *_llama_cpp(api, root)
    found = _object(api.get(f"{root}/version"))
    version = found.get("version")
    if version and engine is None and "max_model_len" in card:
        engine = "vllm"
    longest = card.get("max_model_len")
    settings = _vllm_settings(api, root) if engine == "vllm" else {}
    return engine, str(version) if version else None, settings, longest if isinstance(longest, int) else None


def _llama_cpp(api: Api, root: str) -> tuple[str | None, dict[str, Any], int | None]:
    props = _object(api.get(f"{root}/props"))
    context = (props.get("default_generation_settings") or {}).get("n_ctx")
    told = {"parallel": props.get("total_slots"), "model_path": props.get("model_path"), "n_ctx_per_slot": context}
    return props.get("build_info"), {name: value for name, value in told.items() if value is not None}, context


def _vllm_settings(api: Api, root: str) -> dict[str, Any]:
    """The labels of vllm:cache_config_info, such as block_size and enable_prefix_caching."""
    reply = api.get(f"{root}/metrics")
    found = re.search(rb"^vllm:cache_config_info\{(.*)\}", reply.body, re.MULTILINE) if reply.ok else None
    labels = re.findall(r'(\w+)="([^"]*)"', found[1].decode(errors="replace")) if found else []
    return {name: value for name, value in labels if value != "None" and name != "engine"}


def _tokenizer(api: Api, root: str, engine: str | None, model: str) -> Callable[[str], int] | None:
    """Counts by the server's /tokenize, if it has one that works."""

    def ask(text: str) -> Reply:
        if engine == "llama_cpp":
            return api.post(f"{root}/tokenize", {"content": text, "add_special": False})
        return api.post(f"{root}/tokenize", {"model": model, "prompt": text, "add_special_tokens": False})

    def count(text: str) -> int:
        found = _count(ask(text))
        if found is None:
            raise InputError(f"the server at {root} no longer counts tokens", next_step="check the server's log")
        return found

    return None if engine == "tensorrt_llm" or _count(ask(_TEXT)) is None else count


def _count(reply: Reply) -> int | None:
    found = _object(reply)
    if isinstance(found.get("count"), int):
        return int(found["count"])
    return len(found["tokens"]) if isinstance(found.get("tokens"), list) else None


def _object(reply: Reply) -> dict[str, Any]:
    found = reply.json() if reply.ok else None
    return found if isinstance(found, dict) else {}


class _First(NamedTuple):
    """What one streamed token shows."""

    endpoint: Endpoint
    accepts_ignore_eos: bool
    prompt_tokens: int
    says_done: bool


def _first_token(api: Api, base: str, model: str, endpoint: Endpoint | None, extra: Mapping[str, Any]) -> _First:
    tried: list[Reply] = []
    wanted: tuple[Endpoint, ...] = ("chat", "completions") if endpoint is None else (endpoint,)
    for where in wanted:
        for accepts in (True, False):
            body = _one_token(model, where, _TEXT) | ({"ignore_eos": True} if accepts else {}) | dict(extra)
            reply = api.post(f"{base}{PATHS[where]}", body, timeout_s=_FIRST_TOKEN_TIMEOUT_S)
            _check_allowed(base, reply)
            if reply.ok:
                return _First(where, accepts, _streamed_usage(base, reply), b"data: [DONE]" in reply.body)
            tried.append(reply)
            if reply.status not in _INVALID:
                break
        if reply.status not in (*_INVALID, *_NO_SUCH):
            break
    why = tried[min(1, len(tried) - 1)] if tried[0].status in _INVALID else tried[0]
    raise InputError(
        f"the server at {base} does not generate: {PATHS[wanted[0]]} answered {why.status}: {why.said()}",
        next_step="check that the URL is the base of an OpenAI API and that the model is served",
    )


def _one_token(model: str, endpoint: Endpoint, text: str) -> dict[str, Any]:
    asked = {"messages": [{"role": "user", "content": text}]} if endpoint == "chat" else {"prompt": text}
    sampling = {"max_tokens": 1, "temperature": 0, "top_p": 1}
    return {"model": model, **asked, **sampling, "stream": True, "stream_options": {"include_usage": True}}


def _streamed_usage(base: str, reply: Reply) -> int:
    found = _usage(reply)
    if found is not None:
        return found
    if b'"error"' in reply.body:
        raise InputError(f"the server at {base} does not generate: {reply.said()}", next_step="check the server's log")
    if b"data:" not in reply.body:
        raise InputError(f"the server at {base} does not stream: it answered `stream: true` with {reply.said()!r}")
    raise InputError(
        f"the server at {base} streams without usage, so that its tokens cannot be counted",
        next_step="turn on stream_options.include_usage in the server (or in the proxy before it)",
    )


def _usage(reply: Reply) -> int | None:
    """prompt_tokens of the last usage in a stream."""
    for line in reversed(reply.body.splitlines()):
        if line.startswith(b"data:") and b'"usage"' in line:
            try:
                usage = json.loads(line[5:])["usage"]
            except (ValueError, KeyError, TypeError):
                continue
            if isinstance(usage, dict) and isinstance(usage.get("prompt_tokens"), int):
                return int(usage["prompt_tokens"])
    return None


def _prompt_tokens(api: Api, base: str, endpoint: Endpoint, body: Mapping[str, Any]) -> int | None:
    reply = api.post(f"{base}{PATHS[endpoint]}", body, timeout_s=_FIRST_TOKEN_TIMEOUT_S)
    return _usage(reply) if reply.ok else None
