"""The closed loop against a real server."""

import asyncio
from dataclasses import replace

from orchestrator.loadgen._old_metrics import summarize
from orchestrator.loadgen._old_drive import ClosedLoop, measure
from orchestrator.testing import answer, chunk, serving

PROMPTS = [[{"role": "user", "content": f"prompt {number}"}] for number in range(5)]
LOAD = ClosedLoop(
    url="", model="fake", concurrency=3, num_requests=12, warmup=4, max_tokens=8, temperature=0, seed=1, timeout_s=10
)  # fmt: skip


def test_warm_up_is_sent_but_not_measured():
    seen = []
    with serving(answer("a", "b")) as engine:
        measured = measure(replace(LOAD, url=engine.url), PROMPTS, seen.append)
    assert len(engine.bodies) == 16
    assert measured.records == seen
    summary = summarize(measured.records)
    assert (summary.requests, summary.succeeded, summary.completion_tokens) == (12, 12, 24)
    assert measured.client_cpu_share > 0


def test_every_request_is_complete_and_has_its_own_nonce():
    with serving(answer("a")) as engine:
        for _ in range(2):
            measure(replace(LOAD, url=engine.url), PROMPTS)
    contents = [body["messages"][0]["content"] for body in engine.bodies]
    assert len(set(contents)) == len(contents) == 32
    assert [text.split("] ")[1] for text in contents[:16]] == [text.split("] ")[1] for text in contents[16:]]
    assert engine.bodies[0]["stream_options"] == {"include_usage": True}
    assert {key: engine.bodies[0][key] for key in ("max_tokens", "temperature")} == {"max_tokens": 8, "temperature": 0}


def test_the_concurrency_is_held_and_never_exceeded():
    now = most = 0

    async def script(body):
        nonlocal now, most
        now += 1
        most = max(most, now)
        async with asyncio.timeout(10):
            while most < 3:  # answers nobody until three streams wait
                await asyncio.sleep(0)
        yield chunk("a")
        now -= 1

    with serving(script) as engine:
        measure(replace(LOAD, url=engine.url), PROMPTS)
    assert most == 3
