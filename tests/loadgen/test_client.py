"""The client against a real server that behaves well, badly, and not at all."""

import asyncio
import time

import pytest

from orchestrator.loadgen._old_metrics import failure
from orchestrator.loadgen.client import Client
from orchestrator.testing import DONE, Cut, FakeEngine, Status, answer, chunk


def ask(script, *, timeout_s=10.0, stop=False):
    async def body():
        async with FakeEngine(script) as engine, Client() as client:
            if stop:
                await engine.stop()
            return await client.chat(engine.url, {"model": "fake"}, timeout_s=timeout_s)

    return asyncio.run(body())


def pieces(*parts):
    async def script(body):
        for part in parts:
            if isinstance(part, Exception):
                raise part
            await asyncio.sleep(0)
            yield part

    return script


FINISH, USAGE = chunk(None, finish="stop"), chunk(usage=(7, 3))


def test_a_whole_answer():
    record = ask(answer("one", "two", "three"))
    assert failure(record) is None
    assert len(record.content) == 3
    assert (record.prompt_tokens, record.completion_tokens) == (7, 3)
    assert record.sent < record.content[0] <= record.content[-1] <= record.ended


def test_the_first_token_is_the_first_content_that_is_not_empty():
    proceed = asyncio.Event()

    async def script(body):
        yield chunk(None)
        yield chunk("")
        await proceed.wait()
        yield chunk("a")
        yield FINISH + USAGE + DONE

    async def body():
        async with FakeEngine(script) as engine, Client() as client:
            asking = asyncio.create_task(client.chat(engine.url, {}, timeout_s=10))
            while not engine.bodies:
                await asyncio.sleep(0)
            released = time.perf_counter()
            proceed.set()
            return released, await asking

    released, record = asyncio.run(body())
    assert record.content[0] >= released


def test_events_cut_inside_a_character():
    whole = chunk("\u00e9\U0001f642").replace(b"\\u00e9", "\u00e9".encode()) + FINISH + USAGE + DONE
    record = ask(pieces(*(whole[at : at + 1] for at in range(len(whole)))))
    assert failure(record) is None
    assert len(record.content) == 1


def test_cached_tokens_are_read():
    usage = USAGE.replace(b'"total_tokens"', b'"prompt_tokens_details": {"cached_tokens": 5}, "total_tokens"')
    assert ask(pieces(chunk("a"), FINISH, usage, DONE)).cached_tokens == 5


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (pieces(chunk("a"), Cut()), "disconnected"),
        (pieces(Cut()), "disconnected"),
        (pieces(chunk("a")), "cut_short"),
        (pieces(chunk("a"), chunk(None, finish="abort"), USAGE, DONE), "finish_abort"),
        (pieces(chunk("a"), FINISH, DONE), "no_usage"),
        (pieces(chunk("a"), FINISH, USAGE), "no_done"),
        (pieces(chunk("a"), b"data: {half\n\n"), "malformed"),
        (pieces(b"data: [1, 2]\n\n"), "malformed"),
        (pieces(b'data: {"error": {"message": "context"}}\n\n'), "server_error"),
        (pieces(Status(503, {"error": {"message": "Loading model"}})), "http_503"),
        (pieces(Status(429, {"error": {"message": "busy"}})), "http_429"),
    ],
)
def test_every_failure_has_its_name(script, kind):
    assert failure(ask(script)) == kind


def test_a_failure_keeps_what_the_server_said():
    assert "Loading model" in ask(pieces(Status(503, {"error": {"message": "Loading model"}}))).detail


def test_no_server():
    assert failure(ask(answer(), stop=True)) == "connect"


def hanging_up_server(answers):
    """Promises to keep a connection, and hangs up on the request that comes after so many answers."""

    async def serve(reader, writer):
        body = chunk("a") + FINISH + USAGE + DONE
        for number in range(answers + 1):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            if number < answers:
                head = b"HTTP/1.1 200 OK\r\nkeep-alive: timeout=5\r\ncontent-length: %d\r\n\r\n" % len(body)
                writer.write(head + body)
        writer.close()

    return asyncio.start_server(serve, "127.0.0.1", 0)


def ask_often(server, times):
    async def body():
        async with await server as listening, Client() as client:
            url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
            return [await client.chat(url, {}, timeout_s=10) for _ in range(times)]

    return asyncio.run(body())


def test_a_kept_connection_that_the_server_closed_is_no_failure():
    records = ask_often(hanging_up_server(answers=1), times=4)
    assert [failure(record) for record in records] == [None] * 4
    assert [record.reconnected for record in records] == [False, True, False, True]


def test_a_new_connection_that_breaks_is_a_failure():
    records = ask_often(hanging_up_server(answers=0), times=2)
    assert [failure(record) for record in records] == ["disconnected"] * 2
    assert not any(record.reconnected for record in records)


def test_a_stall_is_a_timeout():
    async def script(body):
        yield chunk("a")
        await asyncio.Event().wait()

    record = ask(script, timeout_s=0.05)
    assert failure(record) == "timeout"
    assert len(record.content) == 1, "what arrived is kept"
