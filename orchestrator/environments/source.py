"""A pinned source archive of the package index, fetched by pip: its index, mirror, proxy and certificates hold."""

import sys
import tarfile
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement

from orchestrator.environments import steps


def fetch(archive: str, sha256: str, into: Path, log: Path) -> Path:
    """The archive that the requirement names, with this digest, in the folder `into`.

    Raises InfrastructureError when pip cannot get it, or gets another one.
    """
    requirement = into / "requirement.txt"
    requirement.write_text(f"{archive} --hash=sha256:{sha256}\n")
    # pip reads a source archive's metadata with its build back end, a small wheel, which it installs aside for that
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", Requirement(archive).name]
    command += ["--no-input", "--progress-bar", "off", "--disable-pip-version-check", "--require-hashes"]
    steps.run([*command, "--dest", into, "--requirement", requirement], what=f"fetching {archive}", log=log)
    return next(into.glob("*.tar.gz"))


def unpack(archive: Path, tree: str, folder: Path) -> Path:
    """The files below `tree` of the archive's one folder, into `folder`."""
    with tarfile.open(archive) as source:
        for member in source:
            inside = PurePosixPath(*PurePosixPath(member.name).parts[1:])
            if member.isfile() and inside.is_relative_to(tree):
                member.name = str(inside.relative_to(tree))
                source.extract(member, folder, filter="data")
    return folder
