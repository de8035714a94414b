"""One fine-tune on every engine of this machine: sizes, parity with the model as trained, latency and throughput.

    python benchmarks/engines.py --out benchmarks/engines.json [--home DIR]        (20 minutes on 2 cores)

Runs recipes/engines-cpu.yaml as a user would; a home that has its engine environments already keeps them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.loadgen import hardware
from orchestrator.planner.plan import Plan
from orchestrator.report.findings import load, measured
from orchestrator.stages.base import Outputs
from orchestrator.store.records import StageRun
from orchestrator.store.store import Store

ROOT = Path(__file__).parents[1]
RECIPE = "recipes/engines-cpu.yaml"
PARITY = ("kl_mean", "kl_p99", "exact_match", "score_diff", "degenerate", "prompt_tokens_identical", "stops")
BENCHMARK = ("ttft_p50", "ttft_p95", "tpot_p50", "tokens_per_s", "errors")


def main() -> None:
    """Run the recipe and write the JSON file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--home", type=Path, help="default: a new one, which is removed again")
    arguments = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    with nullcontext(str(arguments.home)) if arguments.home else tempfile.TemporaryDirectory() as home:
        os.environ["ORCH_HOME"] = home
        try:
            orch("run", RECIPE)
            result = figures(Store(Path(home)))
        finally:
            orch("down")
    about = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": commit.strip(), "hardware": hardware.describe()}
    arguments.out.write_text(json.dumps({**about, **result}, indent=2) + "\n")
    print(table(result))


def figures(store: Store) -> dict[str, Any]:
    """Of the newest run: seconds of its stages, and what was measured of every target.

    What is kept from an earlier run of the same home is named, and its seconds are those that it took then.
    """
    run = store.runs()[0]
    rows = store.stage_runs(run.id)
    outputs = {row.stage: Outputs.model_validate(row.outputs) for row in rows if row.outputs}
    measured = {stage: outputs[stage].metrics for stage in ("parity", "benchmark")}
    return {
        "recipe": RECIPE,
        "stages_s": {row.stage: seconds(store, row) for row in rows},
        "reused": [row.stage for row in rows if row.state == "reused"],
        "exact_match": outputs["evaluate"].metrics["exact_match"],
        "merged": of_target("merged", measured["parity"], PARITY),
        "targets": [
            {
                **{key: made[key] for key in ("name", "engine", "quantization", "bytes")},
                "export_s": round(made["seconds"], 1),
                "parity": of_target(made["name"], measured["parity"], PARITY),
                "benchmark": of_target(made["name"], measured["benchmark"], BENCHMARK),
            }
            for made in outputs["export"].report["targets"]
        ],
        "client_limited": limited(store.benchmark(outputs["benchmark"].report["result"]["id"])),
        "left_out": [
            {"name": target.name, "engine": target.engine, "quantization": target.quantization, "why": target.refused}
            for target in Plan.model_validate(run.plan).targets
            if target.left_out
        ],
    }


def seconds(store: Store, row: StageRun) -> float | None:
    """How long a stage took, or once took."""
    timed = store.finished_stage(row.digest) if row.state == "reused" else row
    return round(timed.ended - timed.started, 1) if timed and timed.ended and timed.started else None


def limited(result: dict[str, Any]) -> list[str]:
    """The cells whose client was late itself, so that their times are not the server's alone."""
    return [f"{cell['target']}, {load(cell)}" for cell in measured(result) if cell["summary"]["client"]["limited"]]


def of_target(name: str, metrics: dict[str, float], wanted: tuple[str, ...]) -> dict[str, float]:
    """The metrics of one target by their last name."""
    return {key: metrics[f"{name}.{key}"] for key in wanted if f"{name}.{key}" in metrics}


def table(result: dict[str, Any]) -> str:
    """Markdown, one line a target."""
    heads = ("target", "engine, format", "size", "mean KL", "same answers", "TTFT p95", "tokens/s")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for made in result["targets"]:
        parity, speed = made["parity"], made["benchmark"]
        lines.append(
            f"| {made['name']} | {made['engine']}, {made['quantization']} | {made['bytes'] / 1e6:.1f} MB "
            f"| {parity['kl_mean']:.2g} | {parity['exact_match']:.0%} "
            f"| {1000 * speed['ttft_p95']:.0f} ms | {speed['tokens_per_s']:.0f} |"
        )
    for target in result["left_out"]:
        why = f"not runnable here: {target['why']}"
        lines.append(f"| {target['name']} | {target['engine']}, {target['quantization']} | {why} |" + " |" * 4)
    return "\n".join(lines)


def orch(*arguments: str) -> None:
    """One command; the script ends when it fails."""
    subprocess.run([Path(sys.executable).with_name("orch"), *arguments], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
