"""Programs built from a source archive, with real cmake, ninja and compiler, and a pip that sees one folder."""

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from orchestrator.environments import doctor, source
from orchestrator.environments.environment import Build, Environment
from orchestrator.environments.site import Site
from orchestrator.errors import InfrastructureError
from tests.environments import wheels

CMAKE = """cmake_minimum_required(VERSION 3.14)
project(tiny CXX)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
if (TINY_CUDA)
  message(FATAL_ERROR "CUDA Toolkit not found")
endif()
add_executable(tiny-quantize main.cpp)
add_executable(other other.cpp)
"""
BACKEND = """
import pathlib
def prepare_metadata_for_build_wheel(folder, settings=None):
    info = pathlib.Path(folder) / "tiny_source-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: tiny-source\\nVersion: 1.0\\n")
    return info.name
def build_wheel(folder, settings=None, metadata=None):
    raise SystemExit("nobody needs the wheel")
"""
FILES = {
    "PKG-INFO": "Metadata-Version: 2.1\nName: tiny-source\nVersion: 1.0\n",
    "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
    "backend.py": BACKEND,
    "vendor/tiny/CMakeLists.txt": CMAKE,
    "vendor/tiny/main.cpp": '#include <cstdio>\nint main() { std::puts("usage"); return 1; }\n',
    "vendor/tiny/other.cpp": "not C++\n",
    "vendor/tiny/scripts/convert.py": "print('converted')\n",
}


@pytest.fixture
def tiny(index: Path) -> Environment:
    """Declares the programs of an archive that the index has."""
    archive = index / "tiny_source-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as made:
        for name, text in FILES.items():
            member = tarfile.TarInfo(f"tiny_source-1.0/{name}")
            member.size = len(text)
            made.addfile(member, io.BytesIO(text.encode()))
    recipe = Build(
        archive="tiny-source==1.0",
        sha256=hashlib.sha256(archive.read_bytes()).hexdigest(),
        tree="vendor/tiny",
        targets=("tiny-quantize",),
        kept=("scripts",),
        size_bytes=1_000_000,
    )
    return Environment(name="tiny", version="1.0", program="tiny-quantize", kinds={"cpu": recipe})


def changed(environment: Environment, **fields: object) -> Environment:
    recipe = environment.kinds["cpu"].model_copy(update=fields)
    return environment.model_copy(update={"kinds": {"cpu": recipe}})


@pytest.mark.slow
def test_programs_are_built_and_what_is_kept_lies_beside_them(site: Site, tiny: Environment) -> None:
    made = site.ensure(tiny)
    assert subprocess.run(made.program("tiny-quantize"), capture_output=True, text=True).stdout == "usage\n"
    assert made.folder
    there = sorted(path.name for path in made.folder.iterdir())
    assert there == ["bin", "complete.json", "requirements.lock", "scripts"]
    assert (made.folder / "scripts" / "convert.py").read_text() == "print('converted')\n"
    assert site.folder(tiny).lock.read_text().startswith("tiny-source==1.0 --hash=sha256:")
    names = sorted(os.listdir(made.folder.parent))
    assert names == ["tiny-1.0-cpu", "tiny-1.0-cpu.lock", "tiny-1.0-cpu.log"]
    findings = doctor.examine(tiny, "cpu", site.folder(tiny))
    assert [finding.what for finding in findings] == ["complete", "tiny-quantize", "scripts"]
    assert all(finding.ok for finding in findings)
    (made.folder / "scripts" / "convert.py").unlink()
    (made.folder / "scripts").rmdir()
    findings = doctor.examine(tiny, "cpu", site.folder(tiny))
    assert [finding.found for finding in findings if not finding.ok] == [f"{made.folder}/scripts is not there"]


def test_files_alone_need_neither_cmake_nor_a_compiler(site, tiny, monkeypatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    made = site.ensure(changed(tiny, targets=()))
    assert made.folder
    assert (made.folder / "scripts" / "convert.py").read_text() == "print('converted')\n"
    assert list((made.folder / "bin").iterdir()) == []


@pytest.mark.slow
def test_cmake_and_ninja_of_the_index_do_where_the_machine_has_none(site, tiny, index, tmp_path, monkeypatch) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("c++", "cc", "ld", "as", "ar", "ranlib", "env"):
        (tools / name).symlink_to(shutil.which(name) or pytest.skip(f"no {name} here"))
    for name in ("cmake", "ninja"):
        real = shutil.which(name) or pytest.skip(f"no {name} here")
        stands_in = (
            f"import os, sys\nif sys.argv[0].endswith('{name}'): os.execv('{real}', ['{real}', *sys.argv[1:]])\n"
        )
        wheels.write(index, name, code=stands_in)
    monkeypatch.setenv("PATH", str(tools))
    assert site.ensure(tiny).folder


def test_without_a_compiler_the_error_says_so_before_anything_is_fetched(site, tiny, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InfrastructureError, match=r"(?s)needs a C\+\+ compiler; found none of c\+\+.*apt-get install"):
        site.ensure(tiny)
    monkeypatch.setenv("CXX", "no-such-compiler -m64")
    with pytest.raises(InfrastructureError, match="CXX=no-such-compiler, which is not there"):
        site.ensure(tiny)
    assert site.find(tiny) is None


def test_an_archive_with_another_digest_is_refused(site, tiny, tmp_path) -> None:
    with pytest.raises(InfrastructureError, match=r"(?s)fetching tiny-source==1.0 failed.*ERROR: .*HASH"):
        source.fetch("tiny-source==1.0", "0" * 64, tmp_path, tmp_path / "log")


@pytest.mark.slow
def test_what_cmake_and_the_compiler_cannot_do_is_told_in_their_words(site: Site, tiny: Environment) -> None:
    with pytest.raises(InfrastructureError, match=r"(?s)configuring tiny 1.0 failed.*CUDA Toolkit not found"):
        site.ensure(changed(tiny, options=("-DTINY_CUDA=ON",)))
    with pytest.raises(InfrastructureError, match=r"(?s)building tiny 1.0 failed.*other.cpp:1:1: error"):
        site.ensure(changed(tiny, targets=("other",)))
    assert site.find(tiny) is None
    assert not [name for name in os.listdir(site.home / "engines") if name.endswith(".building")]
