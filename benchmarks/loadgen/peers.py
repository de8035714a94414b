"""The other load generators that ours is compared with: how they get onto this machine, each at its pinned version.

    python benchmarks/loadgen/peers.py install [--peers DIR] [NAME ...]     (about 10 minutes and 6 GB)
    python benchmarks/loadgen/peers.py status [--peers DIR]

Each has a virtual environment of its own, as engines have, in `$ORCH_HOME/peers/engines` or DIR/engines. That of vLLM
is the engine's, with what its load generator needs besides; it is also the engine of real_engines.py. inference-perf is
only looked for: the package index had no version of it when these were pinned.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from orchestrator.engines import vllm
from orchestrator.environments.environment import Environment, Pip
from orchestrator.environments.site import Site
from orchestrator.errors import OrchError

TORCH = "torch==2.13.0"


@dataclass(frozen=True)
class Peer:
    """A load generator of the package index."""

    environment: Environment

    @property
    def name(self) -> str:
        """As on the command line."""
        return self.environment.name

    @property
    def version(self) -> str:
        """The pinned one."""
        return self.environment.version

    def folder(self, peers: Path) -> Path:
        """Its virtual environment."""
        return Site(peers).folder(self.environment).path

    def python(self, peers: Path) -> Path:
        """Its interpreter, there once it is installed."""
        return Site(peers).folder(self.environment).python

    def installed(self, peers: Path) -> bool:
        """Whether the installation has been completed."""
        return Site(peers).folder(self.environment).mark() is not None


def _with(environment: Environment, *requirements: str) -> Environment:
    """The same with more distributions, for a CPU."""
    pip = environment.kinds["cpu"]
    assert isinstance(pip, Pip), "its CPU build comes from the package index"
    more = pip.model_copy(update={"requirements": (*pip.requirements, *requirements)})
    return environment.model_copy(update={"kinds": {"cpu": more}})


PEERS = (
    Peer(
        Environment(
            name="guidellm",
            version="0.8.1",
            kinds={
                "cpu": Pip(requirements=("guidellm[recommended]=={version}",), first=(TORCH,), size_bytes=1_600_000_000)
            },
        )
    ),
    Peer(
        Environment(
            name="aiperf",
            version="0.13.0",
            kinds={"cpu": Pip(requirements=("aiperf=={version}",), size_bytes=1_200_000_000)},
        )
    ),
    Peer(_with(vllm.ENVIRONMENTS[0], "pandas", "datasets")),
)
LOOKED_FOR = "inference-perf"
"""A load generator of this kind that is not compared, unless the index gets it and somebody adapts it."""


def default_folder() -> Path:
    """Where the environments are unless said otherwise."""
    return Path(os.environ.get("ORCH_HOME") or Path.home() / ".orch") / "peers"


def peer(name: str) -> Peer:
    """The one of that name."""
    return next(peer for peer in PEERS if peer.name == name)


def install(peer: Peer, peers: Path) -> str | None:
    """Make its environment; why that cannot be done, or None."""
    try:
        Site(peers).install(peer.environment)
    except OrchError as error:
        return str(error)
    return None


def on_index(distribution: str) -> bool:
    """Whether the package index has any version of it for this Python."""
    command = [sys.executable, "-m", "pip", "index", "versions", distribution]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Install the other load generators, each in its own environment.")
    parser.add_argument("action", choices=["install", "status"])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--peers", type=Path, default=default_folder())
    arguments = parser.parse_intermixed_args()
    missing = 0
    for peer in PEERS:
        if arguments.names and peer.name not in arguments.names:
            continue
        problem = install(peer, arguments.peers) if arguments.action == "install" else None
        there = peer.installed(arguments.peers)
        missing += not there
        state = f"installed in {peer.folder(arguments.peers)}" if there else f"missing: {problem or 'not installed'}"
        print(f"{peer.name} {peer.version}: {state}", flush=True)
    print(f"{LOOKED_FOR}: {'on' if on_index(LOOKED_FOR) else 'not on'} the package index for this Python; not compared")
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
