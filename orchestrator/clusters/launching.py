"""Starting and ending a cluster through its launcher: files that are written for review, and the command that applies.

A file that somebody has edited is kept and applied as it is; one that nobody has is written again.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import plugins
from orchestrator.clusters import launchers
from orchestrator.clusters.cluster import Cluster
from orchestrator.digests import digest_value
from orchestrator.errors import InfrastructureError, InputError

_WRITTEN = ".written.json"
"""Name -> digest of what was written, in the folder."""


@dataclass(frozen=True)
class Written:
    """What lies in the folder now."""

    folder: Path
    files: list[Path]
    edited: list[Path]
    """Those that were kept as somebody has left them."""


def write(cluster: Cluster, folder: Path) -> Written:
    """The launcher's files. Raises InputError for a cluster without a launcher."""
    launcher = _launcher(cluster)
    folder.mkdir(parents=True, exist_ok=True)
    before = _digests(folder)
    made = launcher.files(cluster, launcher.Options.model_validate(cluster.launcher_options))
    edited = [folder / name for name in made if _is_edited(folder / name, before.get(name))]
    for name, text in made.items():
        if folder / name not in edited:
            (folder / name).write_text(text)
    kept = {path.name for path in edited}
    written = {
        name: before[name] if name in kept and name in before else digest_value(text) for name, text in made.items()
    }
    (folder / _WRITTEN).write_text(json.dumps(written))
    return Written(folder, [folder / name for name in made], edited)


def up(cluster: Cluster, folder: Path) -> None:
    """Apply what lies in the folder. Raises InfrastructureError where the command is missing or fails."""
    _run(_launcher(cluster).up_command(cluster), folder)


def down(cluster: Cluster, folder: Path) -> None:
    """Undo it; as `up`. Raises InputError where nothing was written there."""
    if not (folder / _WRITTEN).is_file():
        raise InputError(f"nothing has been written to {folder}", next_step="`--out FOLDER`, as it was given to `up`")
    _run(_launcher(cluster).down_command(cluster), folder)


def up_command(cluster: Cluster) -> list[str]:
    """What `up` runs."""
    return list(_launcher(cluster).up_command(cluster))


def down_command(cluster: Cluster) -> list[str]:
    """What `down` runs."""
    return list(_launcher(cluster).down_command(cluster))


def _launcher(cluster: Cluster) -> Any:
    if cluster.launcher is None:
        raise InputError(
            f"cluster {cluster.name!r} has no `launcher:` section, so orch cannot start or end its nodes",
            next_step=f"add one, such as `launcher: {{name: aws, region: us-east-1}}` (known:"
            f" {', '.join(plugins.names(launchers))}), or run `ray start` on the nodes yourself",
        )
    return plugins.load(launchers, cluster.launcher["name"])


def _is_edited(path: Path, written: str | None) -> bool:
    return path.is_file() and digest_value(path.read_text()) != written


def _digests(folder: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads((folder / _WRITTEN).read_text())
        return found
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _run(command: list[str], folder: Path) -> None:
    """Its output goes to the terminal."""
    beside = str(Path(sys.executable).parent)  # `ray` of this installation, where its folder is not on PATH
    program = shutil.which(command[0]) or shutil.which(command[0], path=beside)
    if program is None:
        raise InfrastructureError(
            f"{command[0]} is not installed here, and {' '.join(command)} needs it",
            next_step=f"install it; or take {folder} to where it is, and run that there",
        )
    done = subprocess.run([program, *command[1:]], cwd=folder, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise InfrastructureError(
            f"{' '.join(command)} failed with exit code {done.returncode}",
            next_step=f"its words are above; its files are in {folder}",
        )
