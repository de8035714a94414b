"""Nothing lost: runs on a real Ray of several nodes while a seeded schedule kills everything that can be killed.

    python benchmarks/chaos.py --faults 200 --seed 1 --out benchmarks/chaos.json      (about 40 minutes on 2 cores)

A head and three nodes of Ray, a PostgreSQL server, the controller, and three runs at a time, each a real fine-tune of a
tiny model. Every fault is one of `FAULTS`; what it has hit is started again as an operator or a service manager would
do it. All runs train the same, with the same seeds, so that their losses are held against those of a run that nothing
disturbed. Not among the faults: a network that is cut (a node that hangs stands for it); a full disk, which ends a run
by design.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the tests' own cluster and model

from orchestrator.controller import process  # noqa: E402
from orchestrator.loadgen import hardware  # noqa: E402
from orchestrator.ray.connect import listens  # noqa: E402
from orchestrator.ray.remote import Remote  # noqa: E402
from orchestrator.store.records import ENDED  # noqa: E402
from orchestrator.store.store import Store  # noqa: E402
from tests import postgresql  # noqa: E402
from tests.ray.nodes import Nodes, nodes  # noqa: E402
from tests.tiny_model import build_base, write_rows  # noqa: E402

NODES = ("n1", "n2", "n3")
STEPS, SAVE_STEPS = 400, 10
RECIPE = f"""\
name: chaos
base_model: {{folder}}/base
datasets: [{{{{path: {{folder}}/train.jsonl, type: chat}}}}]
test_datasets: [{{{{path: {{folder}}/test.jsonl, type: chat}}}}]
allow_leakage: true
train:
  {{{{adapter: lora, lora_r: 4, sequence_len: 128, micro_batch_size: 2, max_steps: {STEPS}, save_steps: {SAVE_STEPS}}}}}
evaluate: [{{{{task: perplexity}}}}]
"""
CLUSTER = "name: chaos\naddress: {address}\nnodes: [{{count: 3, cpus: 2}}]\n"
AT_ONCE = 3
BETWEEN_S = (3.0, 9.0)
PATIENCE_S = 900.0
"""For the runs that are left after the last fault."""
TOLERANCE = 1e-4
"""Between the losses of a disturbed and of an undisturbed run at the same step."""


class World:
    """Everything that a fault can hit."""

    def __init__(self, folder: Path, cluster: Nodes, database: Any, seed: int) -> None:
        self.folder, self.home, self.nodes, self.database = folder, folder / "home", cluster, database
        self.random = random.Random(seed)
        self.store = Store(self.home)
        self.commands: list[subprocess.Popen[bytes]] = []
        self.runs: list[str] = []

    def submit(self) -> None:
        """A command that follows its run, in the background."""
        before = {run.id for run in self.store.runs(limit=10_000)}
        command = [sys.executable, "-m", "orchestrator.cli.main", "run", "recipe.yaml", "-c", "cluster.yaml"]
        with (self.folder / "commands.log").open("ab") as log:
            started = subprocess.Popen([*command, "--force", "train"], cwd=self.folder, stdout=log, stderr=log)
        self.commands.append(started)
        self.runs.append(until(lambda: next((r.id for r in self.store.runs() if r.id not in before), None), 120))

    def open(self) -> list[str]:
        """Runs that have not ended."""
        return [run for run in self.runs if self.store.run_state(run) not in ENDED]

    def workers(self) -> list[int]:
        """Processes that train."""
        return [
            pid for pid, words in self._ours() if "orchestrator.workers." in words and "orchestrator.guard" not in words
        ]

    def actors(self) -> list[int]:
        """Drivers and stages."""
        return [pid for pid, words in self._ours() if words.startswith("ray::_")]

    def _ours(self) -> Iterator[tuple[int, str]]:
        """Other stores of this machine may run something, too."""
        for pid, words in processes():
            with contextlib.suppress(OSError):
                if f"ORCH_HOME={self.home}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes():
                    yield pid, words


def controller_killed(world: World) -> None:
    """SIGKILL; whoever follows a run, or the next command, starts another one."""
    _to_controller(world, signal.SIGKILL)


def controller_hangs(world: World) -> None:
    """SIGSTOP for longer than its lease."""
    pid = _to_controller(world, signal.SIGSTOP)
    time.sleep(20)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT) if pid else None


def command_killed(world: World) -> None:
    """SIGKILL to a command that follows a run."""
    alive = [command for command in world.commands if command.poll() is None]
    if alive:
        world.random.choice(alive).kill()


def worker_killed(world: World) -> None:
    """SIGKILL to a process that trains or evaluates."""
    _kill_one(world, world.workers())


def actor_killed(world: World) -> None:
    """SIGKILL to a driver or to a stage's process."""
    _kill_one(world, world.actors())


def node_killed(world: World) -> None:
    """SIGKILL to a node's whole process group; it is back some seconds later."""
    name = world.random.choice(NODES)
    world.nodes.kill(name)
    time.sleep(2)
    world.nodes.node(name, cpus=2)


def node_hangs(world: World) -> None:
    """SIGSTOP to a node and all that it started, as if cut off, until Ray has given it up; then it wakes up."""
    name = world.random.choice(NODES)
    world.nodes.signal(name, signal.SIGSTOP)
    time.sleep(15)
    world.nodes.signal(name, signal.SIGCONT)
    time.sleep(5)
    world.nodes.kill(name)
    world.nodes.node(name, cpus=2)


def head_killed(world: World) -> None:
    """SIGKILL to the head, which had everything in memory; it comes back, and so do the nodes."""
    world.nodes.kill("head")
    until(lambda: not listens(world.nodes.address), 30)
    world.nodes.head()
    for name in NODES:
        world.nodes.kill(name)
        world.nodes.node(name, cpus=2)


def store_killed(world: World) -> None:
    """SIGKILL to the database server, which is back some seconds later."""
    world.database.stop()
    time.sleep(3)
    world.database.start()


FAULTS: dict[Callable[[World], None], int] = {
    controller_killed: 4,
    controller_hangs: 1,
    command_killed: 2,
    worker_killed: 6,
    actor_killed: 6,
    node_killed: 3,
    node_hangs: 1,
    head_killed: 1,
    store_killed: 2,
}
"""With their weights: the dear ones are rarer."""


def _to_controller(world: World, number: int) -> int | None:
    holder = process.running(world.store)
    pid = int(holder.split("|")[1]) if holder else None
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number) if pid else None
    return pid


def _kill_one(world: World, pids: list[int]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(world.random.choice(pids), signal.SIGKILL) if pids else None


def processes() -> Iterator[tuple[int, str]]:
    """(pid, command line) of all that live."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if words:
                yield int(path.parent.name), words


def until(happened: Callable[[], Any], patience_s: float) -> Any:
    """Wait for something; raises TimeoutError."""
    deadline = time.monotonic() + patience_s
    while not (found := happened()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {patience_s:.0f} s")
        time.sleep(0.1)
    return found


def disturb(world: World, faults: int) -> list[dict[str, Any]]:
    """Runs and faults, until there have been so many faults; what was done, and when something went on after it."""
    told = []
    kinds, weights = list(FAULTS), list(FAULTS.values())
    while len(told) < faults:
        while len(world.open()) < AT_ONCE:
            world.submit()
        time.sleep(world.random.uniform(*BETWEEN_S))
        fault = world.random.choices(kinds, weights)[0]
        at = time.time()
        fault(world)
        process.ensure(world.store)  # as the next command would
        told.append({"fault": fault.__name__, "at": at, "seconds": round(time.time() - at, 1)})
        print(
            f"{len(told):4d} {fault.__name__:18s} {Counter(world.store.run_state(run) for run in world.runs)}",
            flush=True,
        )
    return told


def judged(world: World, told: list[dict[str, Any]], reference: dict[int, float]) -> dict[str, Any]:
    """What became of the runs."""
    states = Counter(world.store.run_state(run) for run in world.runs)
    twice, worst, compared, progress = list[str](), 0.0, 0, list[float]()
    for run in world.runs:
        events = world.store.events(run=run)
        done = Counter(event.stage for event in events if event.kind == "stage.succeeded")
        twice += [f"{run}: {stage}" for stage, count in done.items() if count > 1]
        for step, loss in losses(events).items():
            if step in reference:
                worst, compared = max(worst, abs(loss - reference[step])), compared + 1
        progress += [event.time for event in events if event.kind in ("progress", "stage.succeeded", "run.succeeded")]
    progress.sort()
    waits = [next((t - one["at"] for t in progress if t > one["at"] + one["seconds"]), None) for one in told]
    known = [wait for wait in waits if wait is not None]
    return {
        "runs": len(world.runs),
        "states": dict(states),
        "runs_lost": sum(count for state, count in states.items() if state != "succeeded"),
        "stages_with_effect_twice": twice,
        "attempts_of_places": sum(len(world.store.allocations.of(run)) for run in world.runs),
        "causes": dict(Counter(f.cause for run in world.runs for f in world.store.allocations.of(run))),
        "attempts_of_stages": sum(row.attempts for run in world.runs for row in world.store.stage_runs(run)),
        "losses_compared": compared,
        "loss_difference_max": worst,
        "loss_tolerance": TOLERANCE,
        "seconds_to_continue": {"median": round(statistics.median(known), 1), "max": round(max(known), 1)},
    }


def losses(events: list[Any]) -> dict[int, float]:
    """Of training, by step; the last one that was told counts."""
    return {
        event.data["step"]: event.data["loss"]
        for event in events
        if (event.kind, event.stage) == ("progress", "train") and "loss" in event.data
    }


def left_over(world: World) -> dict[str, Any]:
    """What lives although nothing should: groups and actors on Ray, processes that mention our folder."""
    remote = Remote(world.nodes.address, world.home, process.namespace(world.store))
    try:
        until(lambda: not (seen := remote.observe()).groups and not seen.actors, 60)
        ray_left: list[str] = []
    except TimeoutError:
        seen = remote.observe()
        ray_left = [*seen.actors, *(group.name for group in seen.groups)]
    finally:
        remote.close()
    process.stop(world.store)
    time.sleep(3)
    ours = [words[:160] for _, words in processes() if str(world.home) in words]
    return {"groups_and_actors": ray_left, "processes": ours}


def _binaries() -> Path:
    found = postgresql.binaries()
    if found is None:
        raise SystemExit("no PostgreSQL server: apt-get install postgresql")
    return found


def main() -> None:
    """Disturb, wait for the end, judge, write the JSON file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as text,
        postgresql.running(_binaries()) as database,
        nodes(Path(text)) as cluster,
    ):
        result = run(Path(text), cluster, database, arguments.faults, arguments.seed)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    about = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": commit.strip(), "hardware": hardware.describe()}
    arguments.out.write_text(json.dumps({**about, "seed": arguments.seed, **result}, indent=2) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "faults"}, indent=2))


def run(folder: Path, cluster: Nodes, database: Any, faults: int, seed: int) -> dict[str, Any]:
    """The whole benchmark in a folder of its own."""
    os.environ |= {**cluster.environment, "ORCH_STORE": database.fresh(), "ORCH_HOME": str(folder / "home")}
    build_base(folder / "base")
    write_rows(folder / "train.jsonl", 6)
    write_rows(folder / "test.jsonl", 4)
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder))
    cluster.head()
    for name in NODES:
        cluster.node(name, cpus=2)
    (folder / "cluster.yaml").write_text(CLUSTER.format(address=cluster.address))
    world = World(folder, cluster, database, seed)
    world.submit()
    until(lambda: not world.open(), 300)
    reference = losses(world.store.events(run=world.runs[0]))
    begun = time.monotonic()
    told = disturb(world, faults)
    with contextlib.suppress(TimeoutError):
        until(lambda: not world.open(), PATIENCE_S)
    result = {
        "faults": told,
        "counts": dict(Counter(one["fault"] for one in told)),
        "minutes": round((time.monotonic() - begun) / 60, 1),
        **judged(world, told, reference),
        "left_over": left_over(world),
    }
    for command in world.commands:
        command.kill()
    if result["runs_lost"]:
        result["errors"] = {r: world.store.run(r).error for r in world.runs if world.store.run_state(r) != "succeeded"}
    return result


if __name__ == "__main__":
    main()
