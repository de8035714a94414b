"""Measures what a user waits for, on this machine, in one run: help, plan, the quickstart, its repetition, a rollback.

    python benchmarks/release.py --out benchmarks/release.json        (about 12 minutes on 2 cores)

Everything is a whole `orch` process against a fresh $ORCH_HOME; the rollback runs while a client streams chats.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.loadgen import hardware
from orchestrator.store.store import Store

ROOT = Path(__file__).parents[1]
RECIPE = "recipes/quickstart.yaml"
SERVICE = "legal-assistant"
URL = "http://127.0.0.1:8800"


def main() -> None:
    """Run everything and write the JSON file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["ORCH_HOME"] = home
        try:
            result = measure(Path(home))
        finally:
            orch("down")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    about = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": commit.strip(), "hardware": hardware.describe()}
    arguments.out.write_text(json.dumps({**about, **result}, indent=2) + "\n")
    print(arguments.out.read_text())


def measure(home: Path) -> dict[str, Any]:
    """All figures, seconds unless the name says otherwise."""
    found: dict[str, Any] = {"help_s": median(5, "--help"), "plan_s": median(5, "plan", RECIPE)}
    found["quickstart_s"] = orch("run", RECIPE)
    run = Store(home).runs()[0].id
    found["stages_s"] = {
        r.stage: round(r.ended - r.started, 1) for r in Store(home).stage_runs(run) if r.ended and r.started
    }
    metrics = {row.stage: (row.outputs or {}).get("metrics", {}) for row in Store(home).stage_runs(run)}
    found["evaluate"] = metrics["evaluate"]
    found["parity"] = metrics["parity"]
    found["benchmark"] = metrics["benchmark"]
    found["again_s"] = median(3, "run", RECIPE)
    found["another_concurrency_s"] = orch("run", RECIPE, "benchmark.concurrency=[2]")
    found["second_release_s"] = orch("run", RECIPE, "export.0.quantization=F16")
    found["rollback"] = rollback(home)
    return found


def rollback(home: Path) -> dict[str, Any]:
    """One `orch rollback` while a client streams chats without a pause; what that client sees of it."""
    client = Client()
    client.start()
    while not client.answers:
        time.sleep(0.01)
    seconds = orch("rollback", SERVICE, "--reason", "measured")
    known = len(client.answers)
    while len(client.answers) < known + 5:
        time.sleep(0.01)
    client.stop.set()
    client.join()
    written = next(e.time for e in Store(home).events(service=SERVICE) if e.kind == "release.rolled_back")
    before = client.answers[0][1]
    seen = next(moment for moment, release in client.answers if release != before)
    return {
        "command_s": seconds,
        "requests": len(client.answers),
        "failed_requests": client.failed,
        "first_answer_from_the_other_release_after_write_ms": round(1000 * (seen - written), 1),
    }


class Client(threading.Thread):
    """Streams chats without a pause; notes when each answer's header came, and from which release."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.stop, self.answers, self.failed = threading.Event(), list[tuple[float, str]](), 0

    def run(self) -> None:
        messages = [{"role": "user", "content": "Name the licence of this passage."}]
        body = json.dumps({"model": SERVICE, "messages": messages, "max_tokens": 16, "stream": True}).encode()
        while not self.stop.is_set():
            request = urllib.request.Request(f"{URL}/v1/chat/completions", body, {"content-type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    self.answers.append((time.time(), str(answer.headers["x-orch-release"])))
                    complete = b"data: [DONE]" in answer.read()
            except OSError:
                complete = False
            self.failed += not complete


def median(times: int, *arguments: str) -> float:
    """Median wall time of a whole command, in seconds."""
    return round(statistics.median(orch(*arguments) for _ in range(times)), 3)


def orch(*arguments: str) -> float:
    """Wall time of one command, in seconds; the script ends when the command fails."""
    begun = time.monotonic()
    subprocess.run(
        [Path(sys.executable).with_name("orch"), *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
    )
    return round(time.monotonic() - begun, 3)


if __name__ == "__main__":
    main()
