"""The gateway over real localhost HTTP, with real upstream servers whose streams a test scripts."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import ClientError, ClientSession, web

from orchestrator.gateway.app import Gateway
from orchestrator.store.store import Store
from orchestrator.testing import DONE, Cut, FakeEngine, answer, chunk

ROOT = Path(__file__).parents[2]


class TableInMemory:
    """A route source without a store."""

    def __init__(self, **engines):
        self.urls, self.current, self.writes, self.request_fields = engines, None, 1, None

    def switch(self, number):
        self.current, self.writes = number, self.writes + 1

    def routes(self):
        releases = [
            {"service": "legal", "number": int(name[1:]), "url": url, "model": "legal", "state": "warm"}
            for name, url in self.urls.items()
        ]
        releases = [{**release, "request_fields": self.request_fields} for release in releases]
        return {"services": {"legal": {"current": self.current}}, "releases": releases}

    def watch(self):
        seen = 0

        def changed():
            nonlocal seen
            before, seen = seen, self.writes
            return seen != before

        return changed


@contextlib.asynccontextmanager
async def serving(source):
    """A gateway in front of `source` and a client of it."""
    runner = web.AppRunner(Gateway(source).application(), handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
            yield client
    finally:
        await runner.cleanup()


def chat(client, model="legal", **fields):
    return client.post("/v1/chat/completions", json={"model": model, "messages": [], "stream": True, **fields})


async def routes(client):
    async with client.get("/-/routes") as response:
        return await response.json()


async def shown_in_routes(client, condition):
    """Ask for the routes until they satisfy the condition."""
    async with asyncio.timeout(10):
        while not condition(found := await routes(client)):
            pass
    return found


def with_engines(test):
    """Run an async test with two engines whose answers name them, release 1 being the current one."""

    def run():
        async def body():
            async with FakeEngine(answer(*["one "] * 20)) as one, FakeEngine(answer(*["two "] * 20)) as two:
                source = TableInMemory(r1=one.url, r2=two.url)
                source.switch(1)
                async with serving(source) as client:
                    await test(client, source, one, two)

        asyncio.run(body())

    run.__name__ = test.__name__
    return run


@with_engines
async def test_what_chooses_the_release_in_its_engine_is_said_whatever_the_client_says(client, source, one, two):
    before = (await routes(client))["version"]
    source.request_fields = {"lora_request": {"lora_int_id": 7}}
    source.switch(1)
    await shown_in_routes(client, lambda found: found["version"] > before)
    async with chat(client, lora_request={"lora_int_id": 1}, temperature=0) as response:
        await response.read()
    asked = {"model": "legal", "messages": [], "stream": True, "lora_request": {"lora_int_id": 7}, "temperature": 0}
    assert one.bodies == [asked]


@with_engines
async def test_bytes_pass_through_unchanged(client, source, one, two):
    pieces = [b": ping\n\n", 'data: {"x": "\u00e9"}\r\n\r\n'.encode(), chunk("a"), DONE]

    async def script(body):
        for piece in pieces:
            yield piece

    one.script = script
    async with chat(client, temperature=0) as response:
        assert await response.read() == b"".join(pieces)
        assert response.status == 200
        assert response.headers["x-orch-release"] == "legal@1"
        assert response.content_type == "text/event-stream"
    assert one.bodies == [{"model": "legal", "messages": [], "stream": True, "temperature": 0}]


@with_engines
async def test_a_release_can_be_named_and_the_engine_gets_the_name_it_knows(client, source, one, two):
    async with chat(client, "legal@2") as response:
        assert response.headers["x-orch-release"] == "legal@2"
        assert b"two" in await response.read()
    assert two.bodies[0]["model"] == "legal"


@with_engines
async def test_each_piece_arrives_before_the_next_is_made(client, source, one, two):
    proceed = asyncio.Event()

    async def script(body):
        yield b"first"
        await proceed.wait()
        yield b"second"

    one.script = script
    async with asyncio.timeout(10), chat(client) as response:
        assert await response.content.readany() == b"first"
        assert (await routes(client))["releases"][0]["in_flight"] == 1
        proceed.set()
        assert await response.read() == b"second"
    await shown_in_routes(client, lambda found: found["releases"][0]["in_flight"] == 0)


@with_engines
async def test_switching_under_load_fails_no_request(client, source, one, two):
    finished = {"legal@1": 0, "legal@2": 0}
    running = True

    async def stream():
        while running:
            async with chat(client) as response:
                assert response.status == 200
                text = await response.read()
                release = response.headers["x-orch-release"]
            assert text.endswith(DONE), "the stream is whole"
            assert text.count({"legal@1": b"one ", "legal@2": b"two "}[release]) == 20, "all of it from one release"
            finished[release] += 1

    async def switch():
        for turn in range(10):
            number = 2 - turn % 2
            target = finished[f"legal@{number}"] + 20
            source.switch(number)
            await shown_in_routes(client, lambda found, number=number: found["services"]["legal"] == number)
            while finished[f"legal@{number}"] < target:
                await asyncio.sleep(0)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        streams = [group.create_task(stream()) for _ in range(16)]
        await switch()
        running = False
    assert all(task.exception() is None for task in streams)
    assert min(finished.values()) >= 100


@with_engines
async def test_a_stream_in_flight_stays_on_its_release(client, source, one, two):
    proceed = asyncio.Event()

    async def script(body):
        yield b"old "
        await proceed.wait()
        yield b"old"

    one.script = script
    async with asyncio.timeout(10), chat(client) as old:
        await old.content.readany()
        source.switch(2)
        found = await shown_in_routes(client, lambda found: found["services"]["legal"] == 2)
        assert [release["in_flight"] for release in found["releases"]] == [1, 0]
        async with chat(client) as new:
            assert new.headers["x-orch-release"] == "legal@2"
        proceed.set()
        assert await old.read() == b"old"


@with_engines
async def test_the_poll_sees_a_switch_without_being_asked(client, source, one, two):
    source.switch(2)
    async with asyncio.timeout(10):
        while True:
            async with chat(client) as response:
                if response.headers["x-orch-release"] == "legal@2":
                    break


@with_engines
async def test_an_engine_that_dies_mid_stream_is_seen_as_a_cut_and_then_as_502(client, source, one, two):
    async def script(body):
        yield chunk("a")
        raise Cut

    one.script = script
    with pytest.raises(ClientError):
        async with chat(client) as response:
            await response.read()
    await one.stop()
    async with chat(client) as response:
        assert response.status == 502
        assert response.headers["x-orch-release"] == "legal@1"
        error = (await response.json())["error"]
    assert error["code"] == "engine_unreachable"
    assert "legal@1" in error["message"]


@with_engines
async def test_a_request_that_was_not_answered_is_sent_once_more(client, source, one, two):
    attempts = []

    async def reset_the_first(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        attempts.append(1)
        if len(attempts) > 1:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(reset_the_first, "127.0.0.1", 0)
    async with server:
        source.urls["r1"] = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        source.switch(1)
        await routes(client)
        async with chat(client) as response:
            assert await response.read() == b"good"
    assert len(attempts) == 2


@with_engines
async def test_kept_connections_that_the_engine_does_not_serve_again_fail_no_request(client, source, one, two):
    both, connections = asyncio.Barrier(2), []

    async def answer_once_then_hang_up(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        connections.append(1)
        if len(connections) <= 2:
            await both.wait()  # so that two connections are kept
        writer.write(b"HTTP/1.1 200 OK\r\nkeep-alive: timeout=5, max=100\r\ncontent-length: 4\r\n\r\ngood")
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async def ask():
        async with chat(client) as response:
            assert (response.status, await response.read()) == (200, b"good")

    async with await asyncio.start_server(answer_once_then_hang_up, "127.0.0.1", 0) as server:
        source.urls["r1"] = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        source.switch(1)
        await routes(client)
        async with asyncio.timeout(30):
            await asyncio.gather(ask(), ask())
            await ask()


@with_engines
async def test_a_slow_client_holds_back_only_itself(client, source, one, two):
    block, blocks = b"x" * 2**20, 64
    written = 0

    async def script(body):
        nonlocal written
        for _ in range(blocks if body.get("long") else 1):
            yield block
            written += 1

    one.script = script
    async with chat(client, long=True) as slow:
        async with chat(client) as quick:
            assert len(await quick.read()) == len(block)
        assert written < blocks, "the unread answer waits in the engine, not in the gateway's memory"
        assert len(await slow.read()) == len(block) * blocks


@with_engines
async def test_a_client_that_leaves_ends_the_request_upstream(client, source, one, two):
    async def script(body):
        yield chunk("a")
        await asyncio.Event().wait()

    one.script = script
    response = await chat(client)
    await response.content.readany()
    response.close()
    async with asyncio.timeout(10):
        await one.abandoned.wait()
    await shown_in_routes(client, lambda found: found["releases"][0]["in_flight"] == 0)


@with_engines
async def test_errors_are_openai_errors(client, source, one, two):
    async with chat(client, "gpt-5") as response:
        assert response.status == 404
        assert "available: legal, legal@1, legal@2" in (await response.json())["error"]["message"]
    async with client.post("/v1/chat/completions", data=b"{", headers={"content-type": "application/json"}) as response:
        assert response.status == 400
        assert (await response.json())["error"]["code"] == "invalid_json"


@with_engines
async def test_models_health_and_an_unreadable_store(client, source, one, two):
    async with client.get("/v1/models") as response:
        assert [model["id"] for model in (await response.json())["data"]] == ["legal", "legal@1", "legal@2"]
    before = await routes(client)
    urls, source.urls = source.urls, None
    source.switch(2)
    assert (await routes(client)) == before, "the last table keeps serving"
    source.urls = urls
    assert (await routes(client))["services"] == {"legal": 2}
    async with client.get("/health") as response:
        assert response.status == 200


def start_gateway(home, port):
    command = [sys.executable, "-m", "orchestrator.gateway.app", "--port", str(port), "--home", str(home)]
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_port_in_use_is_a_clear_error(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start_gateway(tmp_path, port)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 2
    assert f"port {port}" in said
    assert "serve.port" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_process_follows_the_store(kind, tmp_path, request, monkeypatch):
    if kind == "postgresql":
        monkeypatch.setenv("ORCH_STORE", request.getfixturevalue("postgresql").fresh())
    store = Store(tmp_path)

    async def scenario(port):
        async with FakeEngine(answer("one")) as one, FakeEngine(answer("two")) as two:
            for number, engine in ((1, one), (2, two)):
                release = store.get_or_create_release("legal", f"digest-{number}", "run-1", {})
                store.move_release(release, "starting")
                store.move_release(release, "warm", url=engine.url, model="legal")
            store.switch("legal", 1, expected=None, kind="release.promoted", reason=None)
            async with ClientSession(f"http://127.0.0.1:{port}") as client:
                await answers(client)
                assert await current_text(client) == "one"
                assert (await routes(client))["home"] == str(tmp_path)
                store.switch("legal", 2, expected=1, kind="release.rolled_back", reason="test")
                await shown_in_routes(client, lambda found: found["services"]["legal"] == 2)
                assert await current_text(client) == "two"

    async def answers(client):
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(ClientError):
                    async with client.get("/health"):
                        return
                await asyncio.sleep(0.01)

    async def current_text(client):
        async with chat(client) as response:
            lines = (await response.text()).split("\n\n")
        deltas = [json.loads(line[6:])["choices"] for line in lines if line.startswith("data: {")]
        return "".join(choice["delta"]["content"] or "" for choices in deltas for choice in choices)

    port = free_port()
    process = start_gateway(tmp_path, port)
    try:
        asyncio.run(scenario(port))
        process.terminate()
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.communicate()
