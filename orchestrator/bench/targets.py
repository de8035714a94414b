"""A target that is ready to be measured, and the simplest kind: a server that somebody else runs."""

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from orchestrator.bench.result import Target
from orchestrator.loadgen import hardware
from orchestrator.loadgen.probe import Endpoint, Server, probe

_HERE = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Ready:
    """A target whose server answers."""

    target: Target
    server: Server
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of every request; the key, for example."""


Opener = Callable[[], AbstractContextManager[Ready]]
"""Makes a target ready for as long as its context lasts: starts its engine and stops it, or merely finds it."""


@contextmanager
def server(
    name: str,
    url: str,
    *,
    model: str | None = None,
    api_key: str | None = None,
    headers: Mapping[str, str] | None = None,
    endpoint: Endpoint | None = None,
    request_fields: Mapping[str, Any] | None = None,
    usd_per_hour: float | None = None,
    price_source: str | None = None,
    **known: str | None,
) -> Iterator[Ready]:
    """A server that runs already. `known` holds more of `Target`: engine, engine_version, quantization, release.

    A user and a password in the URL are sent as such, and are not in what is kept.

    Raises InputError: no server there, not an OpenAI API, unknown model, a key is needed.
    """
    url, login = _without_login(url)
    sent = {**login, **(headers or {}), **({"Authorization": f"Bearer {api_key}"} if api_key else {})}
    found = probe(url, model=model, headers=sent, endpoint=endpoint, request_fields=request_fields)
    facts = {"engine": found.engine, "engine_version": found.engine_version}
    facts |= {key: value for key, value in known.items() if value is not None}
    target = Target(
        name=name,
        url=found.url,
        model=found.model,
        engine_args=found.engine_args,
        hardware=hardware.describe() if urlsplit(found.url).hostname in _HERE else None,
        usd_per_hour=usd_per_hour,
        price_source=price_source,
        **facts,
    )
    yield Ready(target, found, sent)


def _without_login(url: str) -> tuple[str, dict[str, str]]:
    """The URL without its user and password, and the header that says them."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    login, at, _ = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    return url.replace(f"{login}@", "", 1), {"Authorization": f"Basic {b64encode(unquote(login).encode()).decode()}"}
