"""Closed-loop load: a fixed number of streams, each sending its next request when the last one has ended.

The warm-up opens every connection and is not measured. Towards the end fewer streams remain than `concurrency` says,
so take several requests per stream. A slow server slows a closed loop down: it measures latency at a concurrency,
not at an arrival rate.
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.loadgen._old_metrics import Record
from orchestrator.loadgen.client import Client
from orchestrator.loadgen.workload import Messages, endless, with_nonce


@dataclass(frozen=True)
class ClosedLoop:
    """One measurement at one concurrency."""

    url: str
    """Base URL of the OpenAI API, such as http://127.0.0.1:8000/v1."""
    model: str
    concurrency: int
    """Streams at the same time."""
    num_requests: int
    """Measured requests."""
    warmup: int
    """Requests before them, at the same concurrency, not measured."""
    max_tokens: int
    temperature: float
    seed: int
    """Decides the order of the prompts; nonces are new in every measurement, since a server remembers old ones."""
    timeout_s: float
    """For one request."""


@dataclass(frozen=True)
class Measurement:
    """Records of the measured requests in the order in which they ended."""

    records: list[Record]
    client_cpu_share: float
    """Share of one core that this process used meanwhile; near 1 the client was the limit."""


def request_body(load: ClosedLoop, messages: Messages) -> dict[str, Any]:
    """Every sampling parameter is sent: the defaults of engines differ."""
    return {
        "model": load.model,
        "messages": messages,
        "max_tokens": load.max_tokens,
        "temperature": load.temperature,
        "top_p": 1,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def measure(
    load: ClosedLoop, prompts: Sequence[Messages], on_record: Callable[[Record], None] = lambda _: None
) -> Measurement:  # fmt: skip
    """Warm up, then measure; `on_record` is called as each measured request ends."""
    return asyncio.run(_measure(load, prompts, on_record))


async def _measure(
    load: ClosedLoop, prompts: Sequence[Messages], on_record: Callable[[Record], None]
) -> Measurement:  # fmt: skip
    bodies = _bodies(load, prompts)
    async with Client() as client:
        await _streams(client, load, itertools.islice(bodies, load.warmup), lambda _: None)
        started, used = time.perf_counter(), time.process_time()
        records = await _streams(client, load, itertools.islice(bodies, load.num_requests), on_record)
        used, elapsed = time.process_time() - used, time.perf_counter() - started
    return Measurement(records, client_cpu_share=used / elapsed if elapsed > 0 else 0.0)


def _bodies(load: ClosedLoop, prompts: Sequence[Messages]) -> Iterator[dict[str, Any]]:
    run = secrets.token_hex(4)
    for number, messages in enumerate(endless(prompts, seed=load.seed)):
        yield request_body(load, with_nonce(messages, f"{number:05d}-{run}"))


async def _streams(
    client: Client,
    load: ClosedLoop,
    bodies: Iterator[Mapping[str, Any]],
    on_record: Callable[[Record], None],
) -> list[Record]:
    """`load.concurrency` streams that share the requests until none is left."""
    records: list[Record] = []

    async def stream() -> None:
        for body in bodies:
            record = await client.chat(load.url, body, timeout_s=load.timeout_s)
            records.append(record)
            on_record(record)

    async with asyncio.TaskGroup() as group:
        for _ in range(load.concurrency):
            group.create_task(stream())
    return records
