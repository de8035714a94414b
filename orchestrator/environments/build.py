"""Programs that cmake and ninja build from a pinned source archive, and files of it that are used as they are.

Only the programs and what the recipe keeps end up in the environment; sources and objects are deleted. Options that
tune for the processor of this very machine are left to the recipe, and are better left out: $ORCH_HOME may be shared by
nodes, and a program built for AVX-512 dies of SIGILL on a node without it.
"""

import os
import shutil
from pathlib import Path

from orchestrator.environments import on_path, source, steps, virtualenv
from orchestrator.environments.environment import Build, Environment
from orchestrator.environments.folder import Folder
from orchestrator.errors import InfrastructureError

_COMPILERS = ("c++", "g++", "clang++")


def make(environment: Environment, build: Build, folder: Folder) -> None:
    """Build into the folder, replacing what lies there.

    Raises InfrastructureError without a C++ compiler, and when something cannot be fetched or built; InputError for a
    full disk.
    """
    if build.targets:
        _need_compiler(environment)
    scratch = folder.path.with_name(f"{folder.path.name}.building")
    for leftover in (folder.path, scratch):
        shutil.rmtree(leftover, ignore_errors=True)
    (folder.path / "bin").mkdir(parents=True)
    scratch.mkdir()
    try:
        _build_and_keep(environment, build, scratch, folder)
    finally:
        shutil.rmtree(scratch)
    for target in build.targets:
        _check_starts(folder.path / "bin" / target, folder.log)
    folder.lock.write_text(f"{build.archive} --hash=sha256:{build.sha256}\n")


def _build_and_keep(environment: Environment, build: Build, scratch: Path, folder: Folder) -> None:
    archive = source.fetch(build.archive, build.sha256, scratch, folder.log)
    tree = source.unpack(archive, build.tree, scratch / "source")
    if build.targets:
        _compile(environment, build, tree, scratch / "build", folder)
    for target in build.targets:
        shutil.copy2(_program(scratch / "build", target), folder.path / "bin" / target)
    for kept in build.kept:
        _copy(tree / kept, folder.path / kept)


def _compile(environment: Environment, build: Build, tree: Path, out: Path, folder: Folder) -> None:
    cmake, ninja = _tools(out.with_name("tools"), folder)
    configure = [cmake, "-S", tree, "-B", out, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    configure += ["-DCMAKE_BUILD_TYPE=Release", *build.options]
    steps.run(configure, what=f"configuring {environment}", log=folder.log)
    steps.run([cmake, "--build", out, "--target", *build.targets], what=f"building {environment}", log=folder.log)


def _tools(scratch: Path, folder: Folder) -> tuple[Path | str, Path | str]:
    """cmake and ninja: of the machine, else the package index's."""
    cmake, ninja = shutil.which("cmake"), shutil.which("ninja")
    if cmake and ninja:
        return cmake, ninja
    virtualenv.create(scratch, folder.log)
    virtualenv.pip_install(scratch / "bin" / "python", ["cmake", "ninja"], what="installing cmake", log=folder.log)
    return scratch / "bin" / "cmake", scratch / "bin" / "ninja"


def _need_compiler(environment: Environment) -> None:
    given = os.environ.get("CXX", "").split()[:1]
    if not any(shutil.which(name) for name in given or _COMPILERS):
        found = f"CXX={given[0]}, which is not there" if given else f"none of {', '.join(_COMPILERS)} on PATH"
        raise InfrastructureError(
            f"{environment} is built from source, which needs a C++ compiler; found {found}",
            next_step="install one (Debian: apt-get install g++), or put its programs on PATH",
        )


def _program(build: Path, target: str) -> Path:
    found = next((path for path in build.rglob(target) if path.is_file() and os.access(path, os.X_OK)), None)
    assert found is not None, f"the target {target} of the recipe is a program"
    return found


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, to)
    else:
        shutil.copy2(path, to)


def _check_starts(program: Path, log: Path) -> None:
    if on_path.said_version(program) is None:
        raise InfrastructureError(f"{program} was built, and cannot be started here", next_step=f"read {log}")
