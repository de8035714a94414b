"""Our load generator against real engines: what it measured, held against the engine's own counters.

    python benchmarks/loadgen/peers.py install vllm                                               (once)
    python benchmarks/loadgen/real_engines.py --out benchmarks/loadgen/real_engines.json          (about 3 minutes)

vLLM (the CPU build in the environment of peers.py) and llama.cpp (the wheel's server) serve the same tiny random model.

Tokens: the sum over the requests' usage is the difference of the engine's counters, exactly.

TTFT: vLLM's histogram adds up the time from a request's arrival in the API server to the first token there. It is read
before and after each of some requests that are alone, which gives each one's own, and around the other loads, which
gives their mean. Ours is longer by the way in and out: HTTP, JSON, the event loop of the API server. The number that
`--enable-per-request-metrics` puts into a stream is kept beside it; it counts only from when the engine's core has
scheduled the request.

On two cores the engine's processes, which spin, keep a client from running for as long as an answer takes, and the
kernel merges what has arrived meanwhile. Where it is allowed to, the client therefore runs at real-time priority here.

The requests are those of `orch bench run`; its functions are called here one by one, so that nothing but the measured
requests lies between two readings of the counters.
"""

import argparse
import json
import os
import re
import socket
import statistics
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import peers
from compare_clients import about

from orchestrator import processes
from orchestrator.cli.app import home
from orchestrator.engines import llama_cpp
from orchestrator.engines.base import Launch, Source, Tools
from orchestrator.environments.site import Site
from orchestrator.loadgen import drive, scrape
from orchestrator.loadgen.load import Load
from orchestrator.loadgen.probe import probe
from orchestrator.loadgen.record import Record, failure
from orchestrator.loadgen.workload.config import Workload, build

sys.path.insert(0, str(Path(__file__).parents[2]))  # for the tests' tiny model

NAME = "tiny"
READY_S = 240
WORKLOAD = Workload.model_validate({"synthetic": {"input_tokens": 48, "output_tokens": 32}})
LOADS = (
    {"concurrency": 1, "num_requests": 100},
    {"concurrency": 4, "num_requests": 200},
    {"rate": 8.0, "num_requests": 100},
)
TTFT_LIMIT_MS = 2.0
ALONE = 60


def vllm_command(model: Path, port: int, folder: Path) -> list[str]:
    """`vllm serve`, with each request's own times in its usage chunk."""
    return [
        *(str(peers.peer("vllm").python(folder).with_name("vllm")), "serve", str(model)),
        *("--served-model-name", NAME, "--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "float32", "--max-model-len", "256", "--max-num-seqs", "16", "--enforce-eager"),
        "--enable-per-request-metrics",
    ]


VLLM_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "0",
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""One computing thread, so that on two cores the API server and the client have one as well."""


def measure(url: str, load: dict[str, Any]) -> dict[str, Any]:
    """One load: our sums, the engine's counters, and where it has them its own times."""
    server = probe(url)
    open_loop = "rate" in load
    prepared = build(
        WORKLOAD,
        server,
        seed=17,
        mode="open" if open_loop else "closed",
        rate=load.get("rate"),
        num_requests=load["num_requests"],
    )
    asked = Load(
        url=server.url,
        path=prepared.path,
        concurrency=load.get("concurrency"),
        num_requests=None if open_loop else load["num_requests"],
    )
    before = counters(url)
    with undisturbed():
        records = drive.measure(asked, prepared.requests).records
    after = settled(url, before, sum(record.completion_tokens or 0 for record in records))
    return {**load, **compared(records, before, after)}


def alone(url: str, count: int) -> dict[str, Any]:
    """Our TTFT of requests that are alone, each beside what the engine's histogram grew by; ms."""
    server = probe(url)
    requests = list(build(WORKLOAD, server, seed=23, mode="closed", num_requests=count).requests)
    pairs = []
    for request in requests:
        asked = Load(url=server.url, concurrency=1, num_requests=1)
        before = counters(url)
        with undisturbed():
            (record,) = drive.measure(asked, [request]).records
        after = settled(url, before, record.completion_tokens or 0)
        assert after["ttft_count"] - before["ttft_count"] == 1, "nothing else talks to the engine"
        pairs.append(((record.content[0] - record.sent) / 1e6, (after["ttft_s"] - before["ttft_s"]) * 1e3))
    return difference(pairs)


def difference(pairs: list[tuple[float, float]]) -> dict[str, Any]:
    """Of our TTFT and the engine's, ms."""
    away = [ours - engine for ours, engine in pairs]
    return {
        "requests": len(pairs),
        "ours_p50": round(statistics.median(ours for ours, _ in pairs), 3),
        "engine_p50": round(statistics.median(engine for _, engine in pairs), 3),
        "ours_minus_engine": {f"p{at}": round(float(np.percentile(away, at)), 3) for at in (0, 50, 90, 99, 100)},
        "within_limit_share": sum(abs(ms) <= TTFT_LIMIT_MS for ms in away) / len(away),
    }


@contextmanager
def undisturbed() -> Iterator[None]:
    """Real-time priority for this process and what it starts meanwhile, where that is allowed."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def priority() -> str:
    """What `undisturbed` comes to here."""
    with undisturbed():
        return "real-time" if os.sched_getscheduler(0) == os.SCHED_FIFO else "normal"


def compared(records: list[Record] | Any, before: dict[str, float], after: dict[str, float]) -> dict[str, Any]:
    """Our numbers beside the engine's."""
    failures = [failure(record) for record in records if failure(record)]
    ours = {
        "prompt_tokens": sum(record.prompt_tokens or 0 for record in records),
        "completion_tokens": sum(record.completion_tokens or 0 for record in records),
    }
    engine = {name: int(after[name] - before[name]) for name in ours}
    found: dict[str, Any] = {
        "requests": len(records),
        "failures": failures,
        "tokens": {"ours": ours, "engine": engine, "exact": ours == engine},
        "deltas_with_content": sum(len(record.content) for record in records),
    }
    if after["ttft_count"] > before["ttft_count"]:
        engine_ms = (after["ttft_s"] - before["ttft_s"]) / (after["ttft_count"] - before["ttft_count"]) * 1e3
        ours_ms = statistics.mean((record.content[0] - record.sent) / 1e6 for record in records)
        found["mean_ttft_ms"] = {
            "ours": round(ours_ms, 3),
            "engine": round(engine_ms, 3),
            "ours_minus_engine": round(ours_ms - engine_ms, 3),
        }
    pairs = [((r.content[0] - r.sent) / 1e6, r.server_ttft_ms) for r in records if r.server_ttft_ms is not None]
    if pairs:
        found["ttft_since_scheduled_ms"] = difference(pairs)
    return found


def counters(url: str) -> dict[str, float]:
    """The engine's token counters, and its histogram of TTFT where it has one (else zeros)."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as reply:
        text = reply.read().decode()
    found = scrape.parse(text)
    assert found.prompt_tokens_total is not None, "the engine counts prompt tokens"
    assert found.generated_tokens_total is not None, "the engine counts generated tokens"
    histogram = {
        kind: re.search(rf"^vllm:time_to_first_token_seconds_{kind}\{{.*\}} (\S+)$", text, re.MULTILINE)
        for kind in ("sum", "count")
    }
    return {
        "prompt_tokens": found.prompt_tokens_total,
        "completion_tokens": found.generated_tokens_total,
        "ttft_s": float(histogram["sum"][1]) if histogram["sum"] else 0.0,
        "ttft_count": float(histogram["count"][1]) if histogram["count"] else 0.0,
    }


def settled(url: str, before: dict[str, float], completion_tokens: int) -> dict[str, float]:
    """The counters once the last request is in them, which an engine may add after it has answered."""
    until = time.monotonic() + 5
    found = counters(url)
    while found["completion_tokens"] - before["completion_tokens"] < completion_tokens and time.monotonic() < until:
        time.sleep(0.1)
        found = counters(url)
    return found


@contextmanager
def serving(command: list[str], environment: dict[str, str], port: int, log: Path) -> Iterator[str]:
    """The engine, ready; its base URL without /v1."""
    process = processes.start(command, log=log, environment=environment, grace_s=20)
    url, until = f"http://127.0.0.1:{port}", time.monotonic() + READY_S
    try:
        while not ready(url):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{command[0]} did not start:\n{process.last_lines(30)}")
            time.sleep(0.5)
        yield url
    finally:
        process.stop()


def ready(url: str) -> bool:
    """Whether it can be asked."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except (OSError, urllib.error.HTTPError):
        return False


def free_port() -> int:
    """On the loopback interface."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def engines(folder: Path, peers_folder: Path) -> Iterator[tuple[str, str, list[str], dict[str, str], int]]:
    """Name, version, command, environment and port of each engine that is installed here."""
    base, port = model_that_writes(folder / "base"), free_port()
    if peers.peer("vllm").installed(peers_folder):
        command = vllm_command(base, port, peers_folder)
        yield "vllm", f"vllm-cpu {peers.peer('vllm').version}", command, VLLM_ENVIRONMENT, port
    else:
        print(f"vLLM is not in {peers_folder}; run peers.py install vllm", file=sys.stderr)
    gguf, site = folder / "gguf", Site(home())
    gguf.mkdir()
    llama_cpp.export(Source(merged=base), "F16", gguf, Tools(site, folder / "export.log", _no_worker, print, folder))
    options, installed = llama_cpp.Options(n_ctx=1024, parallel=4, threads=1), site.ensure(llama_cpp.ENVIRONMENTS[0])
    launch = Launch(gguf, NAME, "127.0.0.1", free_port(), folder, installed, options)
    variables = llama_cpp.environment(launch, options)
    yield "llama_cpp", str(installed), llama_cpp.command(launch, options), variables, launch.port


def _no_worker(name: str, *_: Any, **__: Any) -> dict[str, Any]:
    raise AssertionError(f"a plain conversion needs no worker, and asked for {name}")


def model_that_writes(folder: Path) -> Path:
    """The tests' tiny random model, made to write whole pieces of text alone.

    Left as it is, it writes bytes that are no characters, for which an engine sends nothing: the first content would
    come long after the first token.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tests import tiny_model

    tiny_model.build_base(folder)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    silent = [i for i, piece in enumerate(pieces) if piece.startswith("<") or not piece.strip("\u2581")]
    weights = model.get_input_embeddings().weight
    weights.data[[*silent, *range(len(pieces), weights.shape[0])]] = (
        0  # tied: their logits are 0 then, never the highest
    )
    model.save_pretrained(folder)
    return folder


def main() -> None:
    """Measure each engine, print what was found, write the JSON file."""
    parser = argparse.ArgumentParser(description="Our load generator against real engines' own counters.")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--peers", type=Path, default=peers.default_folder(), help="see peers.py")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="orch-engines-") as folder:
        for name, version, command, environment, port in engines(Path(folder), arguments.peers):
            with serving(command, environment, port, Path(folder) / f"{name}.log") as url:
                measure(url, {"concurrency": 4, "num_requests": 8})  # its first steps are slower
                loads = [measure(url, load) for load in LOADS]
                found[name] = {"version": version, "loads": loads}
                if "mean_ttft_ms" in loads[0]:
                    found[name]["alone"] = alone(url, ALONE)
                    print(f"{name}: alone: {json.dumps(found[name]['alone'])}", flush=True)
            for load in loads:
                print(f"{name}: {json.dumps(load)}", flush=True)
    vllm = found.get("vllm")
    verdicts = {
        "tokens exact": all(load["tokens"]["exact"] for engine in found.values() for load in engine["loads"]),
        f"vLLM's TTFT of single requests within {TTFT_LIMIT_MS:g} ms, p50 and p99": vllm
        and [abs(vllm["alone"]["ours_minus_engine"][at]) <= TTFT_LIMIT_MS for at in ("p50", "p99")],
        f"vLLM's mean TTFT of each load within {TTFT_LIMIT_MS:g} ms": vllm
        and [abs(load["mean_ttft_ms"]["ours_minus_engine"]) <= TTFT_LIMIT_MS for load in vllm["loads"]],
    }
    print(json.dumps(verdicts, indent=2))
    if arguments.out:
        result = {**about(), "client_priority": priority(), "engines": found, "verdicts": verdicts}
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
