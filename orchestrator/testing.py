"""Public fakes for tests: `FakeEngine`, a real HTTP server on localhost that streams what a test tells it to.

    async with FakeEngine(answer("He", "llo")) as engine:
        ...  # POST {engine.url}/chat/completions

    with serving(answer("Hello")) as engine:
        ...  # the same for a test that is not async

A script is a function of the request's JSON body that yields raw bytes; it may raise `Cut` to break the connection or
`Status` to answer with an error. Scripts wait on events, not on the clock.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

from aiohttp import web

Script = Callable[[dict[str, Any]], AsyncIterator[bytes]]
DONE = b"data: [DONE]\n\n"


class Cut(Exception):  # noqa: N818
    """Reset the connection here, in the middle of the answer."""


class Status(Exception):  # noqa: N818
    """Answer with this status and JSON body instead of a stream."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(status)
        self.status, self.body = status, body


def chunk(content: str | None = None, *, finish: str | None = None, usage: tuple[int, int] | None = None) -> bytes:
    """One event of a chat stream; `usage` is (prompt tokens, completion tokens) and comes without choices."""
    body: dict[str, Any] = {"object": "chat.completion.chunk", "model": "fake"}
    body["choices"] = [] if usage else [{"index": 0, "delta": {"content": content}, "finish_reason": finish}]
    if usage is not None:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return f"data: {json.dumps(body)}\n\n".encode()


def answer(*tokens: str) -> Script:
    """A complete stream in the order of llama.cpp: an empty delta, the tokens, the reason, the usage, [DONE]."""

    async def script(body: dict[str, Any]) -> AsyncIterator[bytes]:
        yield chunk(None)
        for token in tokens:
            await asyncio.sleep(0)
            yield chunk(token)
        yield chunk(None, finish="stop")
        yield chunk(usage=(7, len(tokens)))
        yield DONE

    return script


class FakeEngine:
    """An OpenAI-compatible server for /v1/chat/completions and /v1/models; remembers the bodies that it was sent."""

    def __init__(self, script: Script, models: Sequence[str] = ("fake",)) -> None:
        self.script, self.models = script, models
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        """Of every request, in the order of the bodies."""
        self.abandoned = asyncio.Event()
        """Set when a client left before its answer was complete."""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Close the port; open connections are dropped."""
        if self._runner is not None and self._runner.addresses:
            self._address = self.url
            await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Base URL such as http://127.0.0.1:41231/v1; the same after `stop`."""
        assert self._runner is not None, "the server was started"
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1" if self._runner.addresses else self._address

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(request.headers)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        try:
            async for piece in self.script(body):
                if not response.prepared:
                    await response.prepare(request)
                await response.write(piece)
        except Status as refused:
            return web.json_response(refused.body, status=refused.status)
        except Cut:
            assert request.transport is not None
            request.transport.abort()
        except (asyncio.CancelledError, ConnectionError):
            self.abandoned.set()
            raise
        return response


@contextmanager
def serving(script: Script, models: Sequence[str] = ("fake",)) -> Iterator[FakeEngine]:
    """A FakeEngine in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    engine = FakeEngine(script, models)
    try:
        asyncio.run_coroutine_threadsafe(engine.__aenter__(), loop).result(10)
        yield engine
    finally:
        asyncio.run_coroutine_threadsafe(engine.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
