"""llama.cpp's own converter from Hugging Face to GGUF: a pinned tool, fetched once from the package index.

    python -m orchestrator.engines._llama_cpp_source     # fetch it now (an install script does this)

The converter is not on the index by itself (the `gguf` package is only its writer), but the source archive of
llama-cpp-python holds the tree it belongs to. pip fetches the archive, so every index, mirror, proxy and certificate
that the user has set for pip holds here too; pip checks the digest; of its 77 MB the 2 MB that the converter
consists of are kept. No part of llama.cpp is compiled.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from filelock import FileLock

from orchestrator.errors import InfrastructureError

VERSION = "0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
SCRIPT = "convert_hf_to_gguf.py"
_TREE = f"llama_cpp_python-{VERSION}/vendor/llama.cpp/"
_KEPT = (SCRIPT, "LICENSE", "conversion/", "gguf-py/gguf/")
_FETCH_TIMEOUT_S = 900


def home() -> Path:
    """The folder that holds everything the project keeps: $ORCH_HOME, else ~/.orch."""
    return Path(os.environ.get("ORCH_HOME", "~/.orch")).expanduser()


def ensure_converter(home: Path) -> Path:
    """Path of the converter's script below `home`/tools, fetched if it is not there (8 s at 100 MB/s).

    Raises InfrastructureError when pip cannot fetch the archive.
    """
    folder = home / "tools" / f"llama.cpp-{VERSION}"
    if not (folder / SCRIPT).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (
            FileLock(folder.with_name(f"{folder.name}.lock")),
            tempfile.TemporaryDirectory(dir=folder.parent) as scratch,
        ):
            if not (folder / SCRIPT).exists():
                extract(_fetch(Path(scratch)), Path(scratch) / "tree").rename(folder)
    return folder / SCRIPT


def extract(archive: Path, folder: Path) -> Path:
    """The converter's files out of the source archive, into a new `folder`."""
    with tarfile.open(archive) as source:
        for member in source:
            inside = member.name.removeprefix(_TREE)
            if member.isfile() and inside != member.name and inside.startswith(_KEPT):
                member.name = inside
                source.extract(member, folder, filter="data")
    return folder


def _fetch(scratch: Path) -> Path:
    requirement = scratch / "requirement.txt"
    requirement.write_text(f"llama-cpp-python=={VERSION} --hash=sha256:{SHA256}\n")
    # pip reads a source archive's metadata with its build back end, a small wheel, which it installs aside for that
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"]
    command += ["--require-hashes", "--dest", str(scratch), "--requirement", str(requirement)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S)
    except subprocess.TimeoutExpired as late:
        raise InfrastructureError(f"fetching llama.cpp's converter took over {_FETCH_TIMEOUT_S} s") from late
    archive = scratch / f"llama_cpp_python-{VERSION}.tar.gz"
    if done.returncode or not archive.exists():
        said = "\n".join(done.stderr.strip().splitlines()[-4:])
        raise InfrastructureError(
            f"llama.cpp's converter (llama-cpp-python=={VERSION}, source archive) could not be fetched by pip:\n{said}",
            next_step="check the network and `pip config list`, then run the same command again",
        )
    return archive


if __name__ == "__main__":
    print(ensure_converter(home()))
