"""A cluster as the controller sees it: what `places.py` can do, through the process of `agent.py`, within time limits.

Not reaching a cluster is an InfrastructureError, never an empty answer: nothing follows from it for what runs there.
"""

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from orchestrator.config import Model
from orchestrator.errors import InfrastructureError, from_record

_CONNECTED_WITHIN_S = 150.0
_ANSWERED_WITHIN_S = 90.0
_ENDED_WITHIN_S = 5.0


class SeenNode(Model):
    """A node that is alive."""

    id: str
    address: str
    resources: dict[str, float]
    """All that it has, as Ray counts: CPU, GPU, memory (bytes)."""
    labels: dict[str, str]
    leaves_at: float | None
    """When it goes away, seconds since 1970, if it is being drained."""


class SeenBundle(Model):
    """A part of a placement group."""

    node: str
    """Empty until it is placed."""
    resources: dict[str, float]


class SeenGroup(Model):
    """A placement group."""

    name: str
    state: str
    bundles: list[SeenBundle]


class Seen(Model):
    """A cluster at one moment."""

    nodes: list[SeenNode]
    groups: list[SeenGroup]
    """Of this store, by the names that it gave them."""
    foreign: list[SeenGroup]
    """Of others."""
    actors: list[str]
    """Of this store."""


class Cluster(Protocol):
    """What the controller needs of a cluster; each call may raise InfrastructureError."""

    def observe(self) -> Seen: ...
    def read(self, path: str, nodes: list[str]) -> dict[str, str | None]: ...
    def start(self, name: str, target: str, args: Sequence[Any], nodes: list[str],
              bundle: dict[str, float]) -> str | None: ...  # fmt: skip
    def start_anywhere(self, name: str, target: str, args: Sequence[Any]) -> None: ...
    def end(self, name: str) -> None: ...
    def close(self) -> None: ...


class Remote:
    """A cluster behind its agent, which is started when it is first needed, and again after it has failed."""

    def __init__(self, address: str, home: Path, namespace: str) -> None:
        """`namespace` keeps the actors and groups of stores apart that use the same cluster."""
        self._command = [sys.executable, "-m", "orchestrator.ray.agent", address, str(home), namespace]
        self._address, self._log = address, home / "logs" / "agent.log"
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str | None] = queue.Queue()

    def observe(self) -> Seen:
        """Everything that it has and runs."""
        return Seen.model_validate(self._ask("observe"))

    def read(self, path: str, nodes: list[str]) -> dict[str, str | None]:
        """The text of a file as each node sees it."""
        found: dict[str, str | None] = self._ask("read", path=path, nodes=nodes)
        return found

    def start(self, name: str, target: str, args: Sequence[Any], nodes: list[str],
              bundle: dict[str, float]) -> str | None:  # fmt: skip
        """Run `target(*args)` as `name` with a bundle on each node; None, or why it was not placed."""
        why: str | None = self._ask("start", name=name, target=target, args=list(args), nodes=nodes, bundle=bundle)
        return why

    def start_anywhere(self, name: str, target: str, args: Sequence[Any]) -> None:
        """The same without a place of its own."""
        self._ask("start_anywhere", name=name, target=target, args=list(args))

    def end(self, name: str) -> None:
        """End the actor and the group of that name."""
        self._ask("end", name=name)

    def close(self) -> None:
        """Let go of the cluster; what runs there goes on."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_ENDED_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _ask(self, do: str, **arguments: Any) -> Any:
        if self._process is None:
            self._begin()
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._lost("its agent has ended") from error
        return self._answer(_ANSWERED_WITHIN_S)

    def _begin(self) -> None:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                                       text=True, start_new_session=True)  # fmt: skip
        self._process, self._answers = process, queue.Queue()
        threading.Thread(target=_listen, args=(process, self._answers), daemon=True).start()
        self._answer(_CONNECTED_WITHIN_S)

    def _answer(self, within_s: float) -> Any:
        try:
            line = self._answers.get(timeout=within_s)
        except queue.Empty:
            raise self._lost(f"no answer within {within_s:.0f} s") from None
        if line is None:
            raise self._lost("its agent has ended")
        found = json.loads(line)
        if "error" in found:
            self.close()
            raise from_record(found["error"])
        return found["value"]

    def _lost(self, why: str) -> InfrastructureError:
        if self._process is not None:
            self._process.kill()
        self.close()
        return InfrastructureError(f"cannot reach Ray at {self._address}: {why}", next_step=f"see {self._log}")


def _listen(process: "subprocess.Popen[str]", answers: "queue.Queue[str | None]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        answers.put(line)
    answers.put(None)
