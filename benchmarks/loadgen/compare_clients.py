"""Our load generator and others, side by side against a server whose timing is known: speed, errors, start-up, memory.

    python benchmarks/loadgen/peers.py install                                                (once)
    python benchmarks/loadgen/compare_clients.py --out benchmarks/loadgen/clients.json        (about 11 minutes)
    python benchmarks/loadgen/compare_clients.py --quick --only orch vllm

The server (mock_server.c) is pinned to the first core and the client, with all its processes, to the second. Every
client gets the same server and the same load, only the number of requests is smaller for slower ones. Nothing of a
client's numbers is believed that the server's log can say: what is the client's own is held against it.

What is measured: tokens/s at 512 streams and requests/s at 64 streams of 2 tokens from a server that waits for nothing;
TTFT and ITL at 64, 256 and 1,000 streams with a TTFT of 50 ms and an ITL of 10 ms, without each stream's first request,
which opens its connection; the evenness of 200 requests/s while the server does nothing for 2 s; the time from a
command's start to its first request; the resident memory of all its processes at 1,000 streams.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import clients
import peers
from clients import Client, Shape
from mock_server import Answer, MockServer
from truth import Outcome, errors, of, send_errors
from watch import PeakMemory

from orchestrator.loadgen import hardware

ROOT = Path(__file__).parents[2]
TTFT_MS, ITL_MS = 50, 10
STREAMS = (64, 256, 1000)
RATE, STALL_AFTER, STALL_S = 200, 400, 2
STARTS = 5
TIMEOUT_S = 300

REQUESTS = {
    "tokens": {"orch": 30000, "vllm": 8192, "aiperf": 2048, "guidellm": 1024},
    "requests": {"orch": 60000, "vllm": 8000, "aiperf": 1000, "guidellm": 800},
    "ttft-64": {"orch": 960, "vllm": 640, "aiperf": 640, "guidellm": 512},
    "ttft-256": {"orch": 3840, "vllm": 2560, "aiperf": 1024, "guidellm": 768},
    "ttft-1000": {"orch": 12000, "vllm": 4000, "aiperf": 2000, "guidellm": 2000},
    "open": {"orch": 1600, "vllm": 1600, "aiperf": 1200, "guidellm": 1200},
}
"""How many requests each can do in about ten seconds; with --quick a quarter, but two for each stream."""
SHAPES = {
    "tokens": Shape(512, 64, 0),
    "requests": Shape(64, 2, 0),
    "ttft-64": Shape(64, 64, 0),
    "ttft-256": Shape(256, 64, 0),
    "ttft-1000": Shape(1000, 64, 0),
    "open": Shape(0, 16, 0, rate=RATE),
}
SERVER: dict[str, dict[str, Any]] = {
    "tokens": {"unlimited": True},
    "requests": {"unlimited": True},
    "open": {"options": ("--stall", f"{STALL_AFTER},{STALL_S}")},
}


Facts = tuple[dict[str, Any], Outcome, list[Answer], list[list[int]]]
"""What can be said of any run; what the client said; what the server saw; when the server did nothing."""


def run(client: Client, shape: Shape, cores: Sequence[int], server: dict[str, Any]) -> Facts:
    """Run the client once."""
    with tempfile.TemporaryDirectory(prefix="orch-compare-") as folder:
        out = Path(folder)
        mock = MockServer(out / "server", ttft_ms=TTFT_MS, itl_ms=ITL_MS, core=min(os.sched_getaffinity(0)), **server)
        with mock:
            started, peak = _execute(client, shape, mock.url, cores, out)
        log = mock.log()
        answers = [answer for answer in log if answer.asked == shape.tokens and answer.stream]
        outcome = client.read(out, answers)
    row = {
        "start_up_s": round((min(answer.first_ns for answer in answers) - started) / 1e9, 4),
        "peak_memory": peak,
        "requests_arrived": len(answers),
        "answers_complete": sum(answer.complete for answer in answers),
        "tokens_reported": sum(len(answer.times) for answer in of(outcome, answers)),
        "server_idle_share": mock.report["idle_share"],
        "connections": mock.report["connections"],
        **clients.as_json(outcome),
    }
    return row, outcome, answers, mock.report["stalls"]


def _execute(client: Client, shape: Shape, url: str, cores: Sequence[int], out: Path) -> tuple[int, int]:
    """When the command was started, ns, and its peak memory, bytes."""
    command = ["taskset", "-c", ",".join(map(str, cores)), *client.command(url, shape, out)]
    environment = clients.environment(client, out)
    with (out / "log").open("wb") as log:
        started = time.time_ns()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=out, start_new_session=True
        )
        memory = PeakMemory(process.pid)
        memory.start()
        try:
            code = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            raise FailedError(f"{client.name}: not done after {TIMEOUT_S} s") from None
        finally:
            peak = memory.stop()
    if code != 0:
        text = (out / "log").read_text(errors="replace").strip()
        raise FailedError(f"{client.name}: exit code {code}: ...{text[-1500:]}")
    return started, peak


class FailedError(Exception):
    """A client did not do what it was asked for; its text says how."""


def measure(key: str, client: Client, cores: Sequence[int], quick: bool) -> dict[str, Any]:
    """Every scenario for one client, by its name."""
    return {name: scenario(name, key, client, cores, quick) for name in SHAPES}


def scenario(name: str, key: str, client: Client, cores: Sequence[int], quick: bool) -> dict[str, Any]:
    """One scenario: the row of it, or why there is none."""
    shape = SHAPES[name]
    count = REQUESTS[name][key]
    least = 2 * shape.streams or 3 * STALL_AFTER
    shape = Shape(shape.streams, shape.tokens, max(least, count // 4) if quick else count, shape.rate)
    say(f"{client.name}: {name}, {shape.requests} requests")
    try:
        row, outcome, answers, stalls = run(client, shape, cores, SERVER.get(name, {}))
    except (FailedError, AssertionError, OSError, ValueError, KeyError) as error:
        say(f"  failed: {error}")
        return {"failed": f"{type(error).__name__}: {error}"}
    if name in ("tokens", "requests"):
        row["tokens_per_s"] = round(row["tokens_reported"] / outcome.duration_s, 1)
        row["requests_per_s"] = round(len(outcome.reported) / outcome.duration_s, 1)
    elif shape.rate:
        row |= send_errors(outcome, answers, shape.rate, stalls[0])
    else:
        row |= errors(outcome, answers, skip=shape.streams) | {"itl_of_tokens": outcome.itl_of_tokens}
    say("  " + ", ".join(f"{key} {value:g}" for key, value in row.items() if isinstance(value, float)))
    return row


def start_up(client: Client, core: int) -> list[float]:
    """Seconds from the command's start to the arrival of its first request, a few times."""
    shape = Shape(8, 8, 16)
    return [run(client, shape, [core], {})[0]["start_up_s"] for _ in range(STARTS)]


def scaling(client: Client, cores: Sequence[int], quick: bool) -> list[dict[str, Any]]:
    """Our client with 1, 2 ... processes on half of the cores, and as many servers on the other half.

    On a machine with two cores the processes share the client's one, and only the tokens per second of processor time
    can show that they do not cost each other anything.
    """
    rows, half = [], len(cores) // 2
    for workers in range(1, max(2, half) + 1):
        servers, pinned = cores[:half][:workers], cores[half:][:workers]
        say(f"{client.name}: {workers} worker processes on cores {pinned}, servers on {servers}")
        rows.append(_scaled(client, workers, pinned, servers, 8192 if quick else 30000))
        say(f"  {rows[-1]}")
    return rows


def _scaled(
    client: Client, workers: int, pinned: Sequence[int], servers: Sequence[int], requests: int
) -> dict[str, Any]:
    shape = Shape(512, SHAPES["tokens"].tokens, requests, workers=workers)
    with tempfile.TemporaryDirectory(prefix="orch-compare-") as folder:
        out, running = Path(folder), list[MockServer]()
        try:
            for index, core in enumerate(servers):
                port = ("--port", str(running[0].port)) if running else ()
                mock = MockServer(out / f"server-{index}", unlimited=True, core=core, options=("--shared", *port))
                running.append(mock.__enter__())
            _execute(client, shape, running[0].url, pinned, out)
        finally:
            for mock in running:
                mock.stop()
        answers = [answer for mock in running for answer in mock.log() if answer.asked == shape.tokens]
        outcome = client.read(out, answers)
    rate, share = (
        len(outcome.reported) * shape.tokens / outcome.duration_s,
        outcome.client["cpu_share"],
    )
    return {
        "workers": workers,
        "client_cores": list(pinned),
        "server_cores": list(servers),
        "tokens_per_s": round(rate, 1),
        "busiest_worker": round(share, 4),
        "tokens_per_s_of_workers_time": round(rate / workers / share, 1),
        "server_idle_share": [mock.report["idle_share"] for mock in running],
    }


# ---- The table, and what it must show ----


def table(rows: dict[str, dict[str, Any]]) -> str:
    """A row for each client, as Markdown."""
    head = [
        "client (1 core)",
        "tokens/s at 512 streams",
        "requests/s (64 streams, 2 tokens)",
        "TTFT overstated by at 64 / 256 / 1,000, ms",
        "abs. TTFT error p50, ms",
        "p99, ms",
        "ITL error p99, ms",
        "send error p99, ms",
        "start-up, s",
        "memory, MB",
    ]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows.values():
        found = row["scenarios"]
        means = "" if found["ttft-64"].get("itl_of_tokens", True) else " (means)"
        cells = [
            f"{row['name']} {row['version']}",
            _cell(found["tokens"], "tokens_per_s", "{:,.0f}"),
            _cell(found["requests"], "requests_per_s", "{:,.0f}"),
            *(
                " / ".join(_cell(found[f"ttft-{streams}"], field, "{:.3g}") for streams in STREAMS)
                for field in ("ttft_overstated_ms", "ttft_error_p50_ms", "ttft_error_p99_ms", "itl_error_p99_ms")
            ),
            _cell(found["open"], "send_error_p99_ms", "{:.3g}"),
            "-" if row["start_up_s"] is None else f"{row['start_up_s']:.2f}",
            _cell(found["ttft-1000"], "peak_memory", "{:,.0f}", 1e-6),
        ]
        cells[6] += means
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(row: dict[str, Any], field: str, form: str, factor: float = 1) -> str:
    value = row.get(field)
    return "failed" if "failed" in row else "-" if value is None else form.format(value * factor)


def targets(rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Each target with what was found in this run; `met` is None where the run cannot say."""

    def ours(scenario: str, field: str) -> float | None:
        value = rows.get("orch", {}).get("scenarios", {}).get(scenario, {}).get(field)
        return None if value is None else float(value)

    def ratio(scenario: str, field: str, peer: str) -> float | None:
        theirs = rows.get(peer, {}).get("scenarios", {}).get(scenario, {}).get(field)
        mine = ours(scenario, field)
        return mine / theirs if mine and theirs else None

    found: list[tuple[str, float | None, str, float]] = [
        ("tokens/s, times vLLM bench", ratio("tokens", "tokens_per_s", "vllm"), "at least", 1.7),
        ("tokens/s, times GuideLLM", ratio("tokens", "tokens_per_s", "guidellm"), "at least", 15),
        ("tokens/s, times AIPerf", ratio("tokens", "tokens_per_s", "aiperf"), "at least", 15),
        ("requests/s, times vLLM bench", ratio("requests", "requests_per_s", "vllm"), "at least", 8),
    ]
    for streams in STREAMS:
        name = f"ttft-{streams}"
        found += [
            (f"TTFT error median at {streams}, ms", ours(name, "ttft_error_p50_ms"), "at most", 0.1),
            (f"TTFT error p99 at {streams}, ms", ours(name, "ttft_error_p99_ms"), "at most", 1),
            (f"ITL error p99 at {streams}, ms", ours(name, "itl_error_p99_ms"), "at most", 1),
        ]
    memory = ours("ttft-1000", "peak_memory")
    found += [
        ("send error p99 through a stall, ms", ours("open", "send_error_p99_ms"), "at most", 1),
        ("start-up, s", rows.get("orch", {}).get("start_up_s"), "at most", 0.5),
        ("memory at 1,000 streams, MB", memory / 1e6 if memory else None, "at most", 150),
    ]
    return [
        {
            "target": name,
            "limit": f"{relation} {limit:g}",
            "found": None if value is None else round(value, 4),
            "met": None if value is None else value >= limit if relation == "at least" else value <= limit,
        }
        for name, value, relation, limit in found
    ]


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def available(folder: Path) -> dict[str, Callable[[], Client]]:
    """The clients by their short names."""
    return {
        "orch": lambda: clients.Orch(_version()),
        "vllm": lambda: clients.VllmBench(peers.peer("vllm"), folder),
        "aiperf": lambda: clients.Aiperf(peers.peer("aiperf"), folder),
        "guidellm": lambda: clients.Guidellm(peers.peer("guidellm"), folder),
    }


def _version() -> str:
    from importlib.metadata import version

    return version("orch")


def main() -> None:
    """Run everything, print the table and the targets, write the JSON file."""
    parser = argparse.ArgumentParser(description="Compare load generators against a server with known timing.")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--peers", type=Path, default=peers.default_folder(), help="see peers.py")
    parser.add_argument("--quick", action="store_true", help="fewer requests; for development")
    parser.add_argument("--only", nargs="+", choices=["orch", "vllm", "aiperf", "guidellm"], help="these clients alone")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        parser.error("two cores are needed: one for the server, one for the client")
    if shutil.which("taskset") is None:
        parser.error("taskset (util-linux) is needed")
    rows: dict[str, dict[str, Any]] = {}
    begun = time.monotonic()
    for key, make in available(arguments.peers).items():
        if arguments.only and key not in arguments.only:
            continue
        if key != "orch" and not peers.peer(key).installed(arguments.peers):
            say(f"{key}: not installed; run `python benchmarks/loadgen/peers.py install --peers {arguments.peers}`")
            continue
        client = make()
        found = measure(key, client, [cores[1]], arguments.quick)
        starts = (
            start_up(client, cores[1])
            if key == "orch"
            else [r["start_up_s"] for r in found.values() if "start_up_s" in r]
        )
        rows[key] = {
            "name": client.name,
            "version": client.version,
            "start_up_s": statistics.median(starts) if starts else None,
            "scenarios": found,
        }
        if key == "orch":
            rows[key]["scaling"] = scaling(client, cores, arguments.quick)
    result = {
        **about(),
        "seconds": round(time.monotonic() - begun),
        "server": {"ttft_ms": TTFT_MS, "itl_ms": ITL_MS, "core": cores[0]},
        "client_core": cores[1],
        "clients": rows,
        "targets": targets(rows),
    }
    print(table(rows))
    if not peers.on_index(peers.LOOKED_FOR):
        result["not_compared"] = f"{peers.LOOKED_FOR}: not on the package index for Python {platform.python_version()}"
        print(f"\n{result['not_compared']}")
    for target in result["targets"]:
        met = {True: "met", False: "NOT MET", None: "not measured"}[target["met"]]
        print(f"{met:12} {target['target']}: {target['found']} ({target['limit']})")
    for row in rows.get("orch", {}).get("scaling", []):
        print(f"{row['workers']} worker(s): {row}")
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


def about() -> dict[str, Any]:
    """When, what and on what."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": commit.strip(),
        "python": platform.python_version(),
        "hardware": hardware.describe(),
    }


if __name__ == "__main__":
    main()
