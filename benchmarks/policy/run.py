"""The scheduling policy against what others do, on traces and synthetic loads; how it packs; how long a decision takes.

    python benchmarks/policy/run.py --traces DIR --out benchmarks/policy/policy.json      (about 20 minutes on 2 cores)
    python benchmarks/policy/run.py --trace jobs.csv --gpus 512                           another trace, on 8-GPU nodes
    python benchmarks/policy/run.py --table benchmarks/policy/policy.json                 the result as tables
    python benchmarks/policy/run.py --only scale                                          or simulation, packing
    python benchmarks/policy/run.py --only simulation --sigma 1 --append --out benchmarks/policy/policy.json

DIR holds openb_pod_list_default.csv and openb_node_list_gpu_node.csv of the Alibaba cluster (2023), from
github.com/hkust-adsl/kubernetes-scheduler-simulator. A job of it lasts from its scheduling to its deletion; those of
more than two days are left out; its time is compressed until the load is as asked, since it is nearly idle in real
time; it names no users, and its QoS classes stand for them. Another trace may name its columns in many ways (COLUMNS in
jobs.py); --gpus is the size of its cluster, or --nodes a list of nodes as openb's.

Everything is simulated with the function that decides in production, from noisy estimates: true time times a
log-normal factor of sigma 0.6, or as --sigma says.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import baselines
import packing
import scale
import tables
from jobs import LONGEST, Workload, compressed, nodes, read_jobs, read_nodes, synthetic, with_noise
from metrics import measure
from simulate import Policy, simulate

from orchestrator.loadgen import hardware
from orchestrator.scheduler.policy import decide

ROOT = Path(__file__).parents[2]
PODS, NODES = "openb_pod_list_default.csv", "openb_node_list_gpu_node.csv"
LOADS, SEEDS = (0.84, 1.05), (1, 2)


def main() -> None:
    """Simulate what was asked for, print it, and write it where asked."""
    options = arguments()
    if options.table:
        print(tables.render(json.loads(options.table.read_text())))
        return
    result = about() | {part: [row | commit() for row in rows] for part, rows in parts(options).items()}
    if options.append:
        known = json.loads(options.out.read_text())
        result = known | {part: known.get(part, []) + rows for part, rows in result.items() if isinstance(rows, list)}
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(tables.render(result))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--traces", type=Path, default=ROOT.parent / "shared" / "traces", help="folder with openb's files"
    )
    parser.add_argument(
        "--trace", type=Path, action="append", help="another trace as CSV, instead of the shipped loads"
    )
    parser.add_argument("--nodes", type=Path, help="its cluster, as a list of nodes")
    parser.add_argument("--gpus", type=int, default=256, help="its cluster, and the synthetic one, in 8-GPU nodes")
    parser.add_argument("--every", type=int, default=100, help="take one of so many nodes of openb's list")
    parser.add_argument("--jobs", type=int, default=1200, help="jobs of a simulation")
    parser.add_argument("--loads", type=float, nargs="+", default=LOADS, help="offered loads")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--sigma", type=float, default=0.6, help="log-normal error of the estimates")
    parser.add_argument("--policies", nargs="+", help="only these, by name")
    parser.add_argument("--only", choices=("simulation", "packing", "scale"), help="only this part")
    parser.add_argument("--table", type=Path, help="print an earlier result")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    parser.add_argument("--append", action="store_true", help="add to the rows of --out")
    found = parser.parse_args()
    if found.append and not (found.out and found.out.exists()):
        parser.error("--append needs an --out that exists")
    return found


def about() -> dict[str, Any]:
    """When and on what."""
    return {"date": f"{datetime.now(UTC):%Y-%m-%d}", "hardware": hardware.describe()}


def commit() -> dict[str, str]:
    """From what; each row has its own, since rows may be added later."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {"commit": found.strip()[:12]}


def parts(options: argparse.Namespace) -> dict[str, Any]:
    """Every part that was asked for."""
    found: dict[str, Any] = {}
    if options.only in (None, "simulation"):
        found["simulation"] = list(simulations(options))
    if options.only in (None, "packing") and not options.trace and (options.traces / PODS).exists():
        found["packing"] = packing.measure(options.traces / PODS, options.traces / NODES, options.seeds)
    if options.only in (None, "scale") and not options.trace:
        found["scale"] = [scale.measure(checkpointable=preemption) for preemption in (True, False)]
    return found


def simulations(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each workload and policy."""
    for workload, load, seed in workloads(options):
        for name, (policy, checkpointable) in policies().items():
            if options.policies and name not in options.policies:
                continue
            row = {"workload": workload.name, "load": load, "seed": seed, "sigma": options.sigma, "policy": name}
            row |= {"gpus": workload.gpus, "jobs": len(workload.jobs)}
            row |= measure(simulate(workload, policy, checkpointable))
            print(json.dumps(row), file=sys.stderr, flush=True)
            yield row


def policies() -> dict[str, tuple[Policy, bool]]:
    """Name -> the policy, and whether runs can be preempted."""
    found: dict[str, tuple[Policy, bool]] = {name: (policy, False) for name, policy in baselines.POLICIES.items()}
    return found | {"orch": (decide, True), "orch, no preemption": (decide, False)}


def workloads(options: argparse.Namespace) -> Iterator[tuple[Workload, float, int]]:
    """Every trace at every load with every seed."""
    for load in options.loads:
        for seed in options.seeds:
            for make in sources(options):
                yield with_noise(make(load=load, seed=seed, count=options.jobs), options.sigma, seed), load, seed


def sources(options: argparse.Namespace) -> Iterator[Any]:
    """What makes a workload from a load, a seed and a number of jobs."""
    if options.trace:
        cluster = read_nodes(options.nodes) if options.nodes else nodes(options.gpus)
        for path in options.trace:
            yield partial(compressed, path.stem, read_jobs(path, longest=float("inf")), cluster)
        return
    if (options.traces / PODS).exists():
        cluster = read_nodes(options.traces / NODES, options.every)
        yield partial(compressed, "openb", read_jobs(options.traces / PODS, LONGEST), cluster)
    yield partial(synthetic, "synthetic", options.gpus)


if __name__ == "__main__":
    main()
