"""The gateway: one stable OpenAI-compatible URL in front of the engines of all releases.

    python -m orchestrator.gateway.app --port 8800 --home ~/.orch

Bytes pass through as they come. A request keeps the release that it started on: a switch touches only later requests,
and `/-/routes` says how many are still in flight on each release, so that its engine is stopped only when none is.
The table comes from the store, which is asked every 20 ms whether something was committed (a few microseconds).
No decision is taken here: `routing.py` chooses.
"""

import argparse
import asyncio
import contextlib
import errno
import json
import logging
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, TCPConnector, hdrs, web
from multidict import CIMultiDict, CIMultiDictProxy

from orchestrator.errors import InputError, OrchError
from orchestrator.gateway.routing import Route, Routes, RoutingError, Table
from orchestrator.store.store import Store

POLL_S = 0.020
AFTER_ERROR_S = 0.5
"""Between two tries of a store that cannot be read."""
CONNECT_TIMEOUT_S = 5
MAX_BODY_BYTES = 64 * 2**20
RELEASE_HEADER = "x-orch-release"
# RFC 9110 7.6.1: these belong to one connection; Host, Content-Length and Expect are written anew
HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade", "host", "expect"}
)
_AUTOMATIC = (hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.USER_AGENT, hdrs.CONTENT_TYPE)

log = logging.getLogger(__name__)


class Gateway:
    """The proxy's state: the table, its version, and the requests in flight on each release."""

    def __init__(self, source: Routes, home: str = "") -> None:
        """`home` names the store in /-/routes, so that a command can tell its own gateway from another."""
        self._home = home
        self._source, self._changed, self._stale = source, source.watch(), True
        self._reading = asyncio.Lock()
        self.table = Table({}, {})
        self.version = 0
        """Counts the tables that were seen; a larger one than before a switch means that it was read."""
        self.in_flight: Counter[str] = Counter()

    def application(self) -> web.Application:
        """The aiohttp application; run it with handler_cancellation=True, so that a client's leaving is passed on."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.cleanup_ctx.extend([self._client, self._poll])
        app.router.add_get("/health", self._health)
        app.router.add_get("/-/routes", self._routes)
        app.router.add_get("/v1/models", self._models)
        app.router.add_route("*", "/v1/{path:.+}", self._proxy)
        return app

    async def refresh(self) -> bool:
        """Read the table if it may have changed; False, and the last one is kept, when the store cannot be read."""
        async with self._reading:
            try:
                self._stale = self._changed() or self._stale
                if self._stale:  # in a thread: the store may be a server that is slow, or gone, while streams go on
                    self.table = Table.read(await asyncio.to_thread(self._source.routes))
                    self.version, self._stale = self.version + 1, False
            except Exception:  # the gateway must outlive a store that is locked, full or being restored
                log.exception("cannot read the routes; keeping version %d", self.version)
                return False
        return True

    async def _client(self, _: web.Application) -> AsyncIterator[None]:
        timeout = ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
        kept, fresh = TCPConnector(limit=0, keepalive_timeout=30), TCPConnector(limit=0, force_close=True)
        async with (
            ClientSession(connector=kept, timeout=timeout, auto_decompress=False) as self._kept,
            ClientSession(connector=fresh, timeout=timeout, auto_decompress=False) as self._fresh,
        ):
            yield

    async def _poll(self, _: web.Application) -> AsyncIterator[None]:
        await self.refresh()
        task = asyncio.create_task(self._keep_polling())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _keep_polling(self) -> None:
        while True:
            await asyncio.sleep(POLL_S if await self.refresh() else AFTER_ERROR_S)

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _routes(self, _: web.Request) -> web.Response:
        if not self._reading.locked():  # else somebody reads them already, perhaps for long
            await self.refresh()
        releases = [
            {"name": route.name, "state": route.state, "url": route.url, "in_flight": self.in_flight[route.name]}
            for route in self.table.releases.values()
        ]
        body = {"home": self._home, "version": self.version, "services": dict(self.table.current), "releases": releases}
        return web.json_response(body)

    async def _models(self, _: web.Request) -> web.Response:
        models = [{"id": name, "object": "model", "owned_by": "orch"} for name in self.table.names()]
        return web.json_response({"object": "list", "data": models})

    async def _proxy(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.read()
            fields = _fields(request, body)
            return await self._attempt(request, body, fields)
        except RoutingError as error:
            return web.json_response(error.body(), status=error.status)

    async def _attempt(self, request: web.Request, body: bytes, fields: dict[str, Any] | None) -> web.StreamResponse:
        model = None if fields is None else fields.get("model")
        tried = await self._choose(model)
        try:
            return await self._forward(request, tried, _adapted(tried, body, fields), self._kept)
        except _UnreachableError as first:
            # nothing was answered: the engine has moved, or it closed a connection that it had promised to keep, as
            # llama.cpp's does after each stream; other kept ones may be closed too, so the second is a new one
            log.debug("%s: %s; trying once more", tried.name, first)
        await self.refresh()
        route = self.table.choose(model)
        try:
            return await self._forward(request, route, _adapted(route, body, fields), self._fresh)
        except _UnreachableError as error:
            message = f"the engine of {route.name} does not answer: {error}"
            answer = RoutingError(502, message, code="engine_unreachable").body()
            return web.json_response(answer, status=502, headers={RELEASE_HEADER: route.name})

    async def _choose(self, model: str | None) -> Route:
        """A request is refused only by the newest table: its release may have become warm since the last poll."""
        try:
            return self.table.choose(model)
        except RoutingError:
            await self.refresh()
            return self.table.choose(model)

    async def _forward(
        self, request: web.Request, route: Route, body: bytes, session: ClientSession
    ) -> web.StreamResponse:  # fmt: skip
        """Send the request to the release and stream its answer. Raises _UnreachableError before the first header."""
        self.in_flight[route.name] += 1
        try:
            upstream = await _open(session, request, route, body)
            async with upstream:
                headers = _kept(upstream.headers)
                headers[RELEASE_HEADER] = route.name
                response = web.StreamResponse(status=upstream.status, reason=upstream.reason, headers=headers)
                await response.prepare(request)
                await _copy(upstream, response, request, route)
                return response
        finally:
            self.in_flight[route.name] -= 1


class _UnreachableError(Exception):
    """The upstream gave no answer at all, so that the request may be sent again."""


async def _open(session: ClientSession, request: web.Request, route: Route, body: bytes) -> ClientResponse:
    url = f"{route.url}/{request.match_info['path']}"
    if request.query_string:
        url += f"?{request.query_string}"
    headers = _kept(request.headers)
    headers.popall(hdrs.CONTENT_LENGTH, None)
    try:
        return await session.request(
            request.method, url, data=body or None, headers=headers, skip_auto_headers=_AUTOMATIC,
            allow_redirects=False,
        )  # fmt: skip
    except (ClientError, OSError) as error:  # TimeoutError of the connect is an OSError
        raise _UnreachableError(str(error) or type(error).__name__) from error


async def _copy(upstream: ClientResponse, response: web.StreamResponse, request: web.Request, route: Route) -> None:
    """Pass on every piece as it arrives. An upstream that dies leaves the client with a visibly cut answer."""
    try:
        async for piece in upstream.content.iter_any():
            await response.write(piece)
        await response.write_eof()
    except (ClientError, OSError) as error:
        log.warning("%s: the answer was cut: %s", route.name, error or type(error).__name__)
        if request.transport is not None:
            # no last chunk is written: closing is what tells a client that the answer is not complete
            request.transport.close()


def _fields(request: web.Request, body: bytes) -> dict[str, Any] | None:
    """The JSON object of the body; None for a body of another type."""
    if not body or request.content_type != "application/json":
        return None
    try:
        fields = json.loads(body)
    except ValueError as error:
        raise RoutingError(400, f"the body is not JSON: {error}", code="invalid_json") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("model"), str | None):
        raise RoutingError(400, "the body must be a JSON object and its model a string", code="invalid_json")
    return fields


def _adapted(route: Route, body: bytes, fields: dict[str, Any] | None) -> bytes:
    """The body with what the engine must be told: the model by its own name, and the fields that choose the release;
    the same bytes where they are there already.
    """
    if fields is None:
        return body
    told = {**fields, **(route.request_fields or {}), **({"model": route.model} if route.model is not None else {})}
    return body if told == fields else json.dumps(told).encode()


def _kept(headers: Mapping[str, str] | CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """The headers that a proxy passes on."""
    named = {name.strip().lower() for name in headers.get(hdrs.CONNECTION, "").split(",")}
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP | named)


def serve(source: Routes, host: str, port: int, home: str = "") -> None:
    """Serve until SIGTERM or SIGINT. Raises InputError if the port cannot be had."""
    app = Gateway(source, home).application()
    try:
        web.run_app(
            app, host=host, port=port, print=None, access_log=None, handler_cancellation=True, shutdown_timeout=5
        )  # fmt: skip
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
            raise
        raise InputError(
            f"port {port} on {host} cannot be used: {error.strerror}",
            next_step="set serve.port to another port, or stop the process that listens on this one",
        ) from error


def main() -> None:
    """Read the arguments and serve; exits with the error's own code."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.gateway.app")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", default=8800, type=int, help="port to listen on")
    parser.add_argument("--home", required=True, type=Path, help="folder of the store")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        serve(Store(arguments.home), arguments.host, arguments.port, str(arguments.home))
    except OrchError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
