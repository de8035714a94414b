"""Arrows point down: a file imports only from the rows above its own, or from its own folder."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "orchestrator"
ROWS = [
    {
        "errors",
        "fencing",
        "units",
        "config",
        "plugins",
        "stats",
        "processes",
        "guard",
        "digests",
        "documents",
        "gpus",
        "jsonlines",
        "validation",
        "webhook",
        "token_contract",
    },
    {"catalog", "environments", "gateway", "loadgen", "report", "scheduler", "store"},
    {"clusters"},
    {"planner", "ray", "bench"},
    {"engines"},
    {"serving"},
    {"stages"},
    {"recipe"},
    {"controller"},
    {"cli", "testing"},
]
ROW_OF = {part: number for number, row in enumerate(ROWS) for part in row}
EXCEPTIONS = {("gateway/app.py", "store")}  # the proxy's edge reads the store; its pure files do not
HEAVY = {"torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets", "sentencepiece"}


def _files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def _imported(path: Path, *, lazily: bool = True) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if lazily else tree.body:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from [node.module, *(f"{node.module}.{name.name}" for name in node.names)]


def _ours(path: Path) -> set[str]:
    return {name.split(".")[1] for name in _imported(path) if name.startswith("orchestrator.")}


def _part(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_from_above(path: Path) -> None:
    part = _part(path)
    for other in _ours(path) - {part, "__version__"}:
        if part == "workers" or (str(path.relative_to(PACKAGE)), other) in EXCEPTIONS:
            continue
        assert other != "workers", "workers are started by name, never imported"
        assert ROW_OF[other] < ROW_OF[part] or ROW_OF[other] == ROW_OF[part] == 0, f"{part} must not import {other}"


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_stay_in_the_workers_and_ray_in_its_folder(path: Path) -> None:
    part = _part(path)
    if part != "workers":
        assert not {name.split(".")[0] for name in _imported(path, lazily=False)} & HEAVY
    if part != "ray":
        assert "ray" not in {name.split(".")[0] for name in _imported(path)}


def test_every_part_has_a_row() -> None:
    found = {_part(path) for path in _files()} - {"workers"}
    assert found <= ROW_OF.keys()
