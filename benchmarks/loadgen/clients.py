"""The load generators side by side: how each is called for the same load, and what its result files say.

A client is called as its documentation tells a user to, with its own defaults but for: chat completions with prompts of
about 16 tokens, answers of a fixed length that the server's usage counts, no live display, and per-request results.
"""

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import tokenizer
from mock_server import Answer
from peers import Peer
from truth import Outcome, Reported

from orchestrator.loadgen import drive

MODEL = "mock-model"
INPUT_TOKENS = 16
RATE_SHAPE = 1e6
"""Burstiness with which vLLM's gamma-distributed arrivals are an even schedule (to 0.1 % of a gap)."""
NUMBER = re.compile(r"\[r(\d{10})\]")
"""The server's number of a request, in the text of its first token."""


@dataclass(frozen=True)
class Shape:
    """The load of one run."""

    streams: int
    tokens: int
    requests: int
    rate: float | None = None
    """Open loop: requests/s, evenly; `streams` means nothing then."""
    workers: int = 1
    """Client processes, of ours."""


class Client(Protocol):
    """A load generator."""

    @property
    def name(self) -> str:
        """As the table shows it."""

    @property
    def version(self) -> str:
        """The same."""

    def command(self, url: str, shape: Shape, out: Path) -> list[str]:
        """What a user would type."""

    def environment(self, out: Path) -> dict[str, str]:
        """Beyond the caller's own."""

    def read(self, out: Path, answers: Sequence[Answer]) -> Outcome:
        """Its result files."""


@dataclass(frozen=True)
class Guidellm:
    """GuideLLM; a mean ITL per request."""

    peer: Peer
    peers: Path
    name: str = "GuideLLM"

    @property
    def version(self) -> str:
        """Pinned."""
        return self.peer.version

    def command(self, url: str, shape: Shape, out: Path) -> list[str]:
        """`guidellm run`."""
        profile = f"kind=constant,rate={shape.rate:g}" if shape.rate else f"kind=concurrent,streams={shape.streams}"
        return [
            *(str(self.peer.python(self.peers).with_name("guidellm")), "run"),
            *("--backend", f"kind=openai_http,target={url},model={MODEL}"),
            *("--profile", profile),
            *("--constraint", f"kind=max_requests,count={shape.requests}"),
            *("--tokenizer", f"kind=huggingface_auto,model={tokenizer.write(out / 'tokenizer')}"),
            *("--data", f"kind=synthetic_text,prompt_tokens={INPUT_TOKENS},output_tokens={shape.tokens}"),
            *("--output", f"kind=json,path={out / 'guidellm.json'}", "--disable-progress"),
        ]

    def environment(self, out: Path) -> dict[str, str]:
        """No hub."""
        return {"HF_HUB_OFFLINE": "1"}

    def read(self, out: Path, answers: Sequence[Answer]) -> Outcome:
        """The requests of its JSON."""
        (benchmark,) = json.loads((out / "guidellm.json").read_text())["benchmarks"]
        rows = benchmark["requests"]["successful"]
        return Outcome(
            [
                Reported(
                    int(row["response_id"].rpartition("-")[2], 16),
                    row["time_to_first_token_ms"] * 1e6,
                    [row["inter_token_latency_ms"] * 1e6],
                )
                for row in rows
            ],
            max(row["request_end_time"] for row in rows) - min(row["request_start_time"] for row in rows),
            itl_of_tokens=False,
        )


@dataclass(frozen=True)
class Aiperf:
    """AIPerf; a mean ITL per request."""

    peer: Peer
    peers: Path
    name: str = "AIPerf"

    @property
    def version(self) -> str:
        """Pinned."""
        return self.peer.version

    def command(self, url: str, shape: Shape, out: Path) -> list[str]:
        """`aiperf profile`."""
        load = (
            ["--request-rate", f"{shape.rate:g}", "--arrival-pattern", "constant"]
            if shape.rate
            else ["--concurrency", str(shape.streams)]
        )
        return [
            *(str(self.peer.python(self.peers).with_name("aiperf")), "profile"),
            *("--model", MODEL, "--url", url, "--endpoint-type", "chat", "--streaming"),
            *("--tokenizer", tokenizer.write_to_hub_cache(out / "hub"), "--use-server-token-count"),
            *("--isl", str(INPUT_TOKENS), "--osl", str(shape.tokens)),
            *("--request-count", str(shape.requests), *load),
            *("--export-level", "records", "--output-artifact-dir", str(out / "aiperf"), "--ui", "none"),
        ]

    def environment(self, out: Path) -> dict[str, str]:
        """It takes a tokenizer from the hub's cache alone when there is no hub."""
        return {"HF_HUB_OFFLINE": "1", "HF_HOME": str(out / "hub")}

    def read(self, out: Path, answers: Sequence[Answer]) -> Outcome:
        """Its records, by the x-request-id that they share with the server's log."""
        numbers = {answer.request_id: answer.number for answer in answers}
        rows = [json.loads(line) for line in (out / "aiperf" / "profile_export.jsonl").read_text().splitlines()]
        rows = [row for row in rows if not row.get("error") and row["metadata"]["benchmark_phase"] == "profiling"]
        about = [row["metadata"] for row in rows]
        return Outcome(
            [
                Reported(
                    numbers[row["metadata"]["x_request_id"]],
                    row["metrics"]["time_to_first_token"]["value"] * 1e6,
                    [row["metrics"]["inter_token_latency"]["value"] * 1e6],
                )
                for row in rows
            ],
            (max(row["request_end_ns"] for row in about) - min(row["request_start_ns"] for row in about)) / 1e9,
            itl_of_tokens=False,
        )


@dataclass(frozen=True)
class VllmBench:
    """`vllm bench serve`."""

    peer: Peer
    peers: Path
    name: str = "vLLM bench serve"

    @property
    def version(self) -> str:
        """Pinned."""
        return self.peer.version

    def command(self, url: str, shape: Shape, out: Path) -> list[str]:
        """With every request's details in the result file."""
        load = (
            ["--request-rate", f"{shape.rate:g}", "--burstiness", f"{RATE_SHAPE:g}"]
            if shape.rate
            else ["--max-concurrency", str(shape.streams)]
        )
        return [
            *(str(self.peer.python(self.peers).with_name("vllm")), "bench", "serve"),
            *("--backend", "openai-chat", "--endpoint", "/v1/chat/completions", "--base-url", url, "--model", MODEL),
            *("--tokenizer", str(tokenizer.write(out / "tokenizer")), "--dataset-name", "random"),
            *("--random-input-len", str(INPUT_TOKENS), "--random-output-len", str(shape.tokens)),
            *("--num-prompts", str(shape.requests), *load, "--disable-tqdm"),
            *("--save-result", "--save-detailed", "--result-dir", str(out), "--result-filename", "vllm.json"),
        ]

    def environment(self, out: Path) -> dict[str, str]:
        """No hub."""
        return {"HF_HUB_OFFLINE": "1"}

    def read(self, out: Path, answers: Sequence[Answer]) -> Outcome:
        """Its lists. Its TTFT is the role chunk's, and the first of its ITLs the way from there to the first token."""
        found = json.loads((out / "vllm.json").read_text())
        rows = zip(found["generated_texts"], found["ttfts"], found["itls"], found["errors"], strict=True)
        return Outcome(
            [
                Reported(_number(text), ttft * 1e9, [gap * 1e9 for gap in itls[1:]])
                for text, ttft, itls, error in rows
                if not error
            ],
            found["duration"],
        )


@dataclass(frozen=True)
class Orch:
    """Ours."""

    version: str
    name: str = "orch bench"

    def command(self, url: str, shape: Shape, out: Path) -> list[str]:
        """`orch bench run URL`."""
        load = ["--rate", f"{shape.rate:g}", "--warmup", "1s"] if shape.rate else ["-c", str(shape.streams)]
        return [
            *(str(Path(sys.executable).with_name("orch")), "bench", "run", url, *load),
            *("--requests", str(shape.requests)),
            *("--input-tokens", str(INPUT_TOKENS), "--output-tokens", str(shape.tokens)),
            *("--workers", str(shape.workers), "--json"),
        ]

    def environment(self, out: Path) -> dict[str, str]:
        """A store of its own."""
        return {"ORCH_HOME": str(out / "home")}

    def read(self, out: Path, answers: Sequence[Answer]) -> Outcome:
        """The records of its one cell, and what the result says of the client."""
        (path,) = (out / "home" / "benchmarks").glob("*/*.records")
        records = [record for record in drive.load_records(path).records if record.error is None]
        begun, ended = min(record.sent for record in records), max(record.ended for record in records)
        answers = [answer for answer in answers if begun <= answer.last_ns <= ended]  # not of a run that was repeated
        numbers = _numbers_by_order([record.sent for record in records], answers)
        return Outcome(
            [
                Reported(
                    number,
                    record.content[0] - record.sent,
                    [later - earlier for earlier, later in zip(record.content, record.content[1:], strict=False)],
                )
                for number, record in zip(numbers, records, strict=True)
            ],
            (max(record.ended for record in records) - min(record.sent for record in records)) / 1e9,
            intended_ns={number: record.intended for number, record in zip(numbers, records, strict=True)},
            client=json.loads((path.parent / "result.json").read_text())["cells"][0]["summary"]["client"],
        )


def _number(text: str) -> int:
    found = NUMBER.search(text)
    assert found is not None, f"the first token carries the request's number: {text[:40]!r}"
    return int(found[1])


def _numbers_by_order(sent: Sequence[int], answers: Sequence[Answer]) -> list[int]:
    """The server's numbers of requests by when they were sent: one process sends one request after the other, and the
    loopback interface delivers each before the next."""
    assert len(sent) == len(answers), f"{len(sent)} requests are recorded and {len(answers)} arrived"
    order = sorted(range(len(sent)), key=sent.__getitem__)
    arrived = sorted(answers, key=lambda answer: answer.last_ns)
    numbers = [0] * len(sent)
    for index, answer in zip(order, arrived, strict=True):
        numbers[index] = answer.number
    return numbers


def environment(client: Client, out: Path) -> Mapping[str, str]:
    """The whole of it; Python without the caller's paths."""
    return {**{key: value for key, value in os.environ.items() if key != "PYTHONPATH"}, **client.environment(out)}


def as_json(outcome: Outcome) -> dict[str, Any]:
    """What a run's row keeps of it."""
    row = {"requests_reported": len(outcome.reported), "duration_s": round(outcome.duration_s, 4)}
    return row | ({"client": dict(outcome.client)} if outcome.client else {})
