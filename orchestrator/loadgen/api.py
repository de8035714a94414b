"""Single questions to a server over HTTP: what models it has, how many tokens a text is. Not the load itself.

Keeps one connection per server. A proxy of the environment (HTTPS_PROXY, NO_PROXY) is used, but never for loopback.
"""

import http.client
import json
import socket
import ssl
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from orchestrator.errors import InputError

_BROKEN = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError, http.client.BadStatusLine)
_SAID_CHARACTERS = 300


@dataclass(frozen=True)
class Reply:
    """One complete answer."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def ok(self) -> bool:
        """Status 200."""
        return self.status == http.HTTPStatus.OK

    def json(self) -> Any:
        """The body as JSON; None when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def said(self) -> str:
        """The server's own words about an error, in one short line."""
        found = self.json()
        error = found.get("error", found) if isinstance(found, dict) else found
        text = error.get("message") or error.get("detail") or error if isinstance(error, dict) else error
        words = self.body.decode(errors="replace") if text is None else str(text)
        return " ".join(words.split())[:_SAID_CHARACTERS]


class Api:
    """Asks one server. Raises InputError when there is nobody to ask."""

    def __init__(self, headers: Mapping[str, str], timeout_s: float) -> None:
        self._headers, self._timeout_s = dict(headers), timeout_s
        self._kept: dict[tuple[str, str], http.client.HTTPConnection] = {}

    def get(self, url: str) -> Reply:
        """GET."""
        return self._reply("GET", url, None, self._timeout_s)

    def post(self, url: str, body: Any, *, timeout_s: float | None = None) -> Reply:
        """POST of JSON; a streamed answer is read to its end."""
        return self._reply("POST", url, json.dumps(body).encode(), timeout_s or self._timeout_s)

    def close(self) -> None:
        """Close the kept connections; a later question opens a new one."""
        for connection in self._kept.values():
            connection.close()
        self._kept.clear()

    def _reply(self, method: str, url: str, body: bytes | None, timeout_s: float) -> Reply:
        parts = urlsplit(url)
        try:
            try:
                return self._ask(method, parts, body, timeout_s)
            except _BROKEN:
                # a kept connection may have been closed meanwhile; a new one tells whether the server is there
                self.close()
                return self._ask(method, parts, body, timeout_s)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise _unreachable(url, error, timeout_s) from error

    def _ask(self, method: str, parts: SplitResult, body: bytes | None, timeout_s: float) -> Reply:
        proxy = _proxy(parts)
        key = (parts.scheme, parts.netloc)
        if key not in self._kept:
            self._kept[key] = _connection(parts, proxy)
        connection = self._kept[key]
        connection.timeout = timeout_s
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        target = f"{parts.scheme}://{parts.netloc}{path}" if proxy and parts.scheme == "http" else path
        headers = {"Accept": "application/json", **({"Content-Type": "application/json"} if body else {})}
        through = _credentials(proxy) if parts.scheme == "http" else {}
        connection.request(method, target, body, {**headers, **through, **self._headers})
        answer = connection.getresponse()
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


def _connection(parts: SplitResult, proxy: SplitResult | None) -> http.client.HTTPConnection:
    via = proxy or parts
    host, port = via.hostname or "", via.port
    if parts.scheme != "https":
        return http.client.HTTPConnection(host, port)
    connection = http.client.HTTPSConnection(host, port, context=ssl.create_default_context())
    if proxy:
        connection.set_tunnel(parts.hostname or "", parts.port or 443, _credentials(proxy))
    return connection


def _proxy(parts: SplitResult) -> SplitResult | None:
    host = parts.hostname or ""
    if host == "localhost" or host == "::1" or host.startswith("127."):
        return None
    import urllib.request

    address = urllib.request.getproxies().get(parts.scheme)
    return urlsplit(address) if address and not urllib.request.proxy_bypass(host) else None


def _credentials(proxy: SplitResult | None) -> dict[str, str]:
    if proxy is None or not proxy.username:
        return {}
    words = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(words.encode()).decode()}"}


def _unreachable(url: str, error: Exception, timeout_s: float) -> InputError:
    host, check = urlsplit(url).hostname, "check the URL, and that the server runs"
    if isinstance(error, socket.gaierror):
        return InputError(f"no server at {url}: the name {host!r} has no address", next_step=check)
    if isinstance(error, ssl.SSLCertVerificationError):
        return InputError(f"the certificate of {url} is not trusted: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return InputError(f"the server at {url} does not speak TLS", next_step="try http:// instead of https://")
    if isinstance(error, TimeoutError):
        return InputError(f"the server at {url} did not answer within {timeout_s:g} s", next_step=check)
    if isinstance(error, ConnectionRefusedError):
        return InputError(f"no server at {url}: the connection was refused", next_step=check)
    if isinstance(error, http.client.HTTPException | ConnectionError):
        words = str(error) or type(error).__name__
        return InputError(f"the server at {url} does not answer as HTTP does: {words}", next_step=check)
    return InputError(f"no server at {url}: {error}", next_step=check)
