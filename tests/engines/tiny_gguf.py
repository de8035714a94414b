"""Tiny models as GGUF files on llama.cpp's real server, for the tests beside this file."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf

from orchestrator.cli.app import home
from orchestrator.controller.execute import run_worker
from orchestrator.engines import llama_cpp, running
from orchestrator.engines.base import Source, Tools
from orchestrator.engines.running import Running
from orchestrator.environments.site import Site

SITE = Site(home())
OPTIONS = llama_cpp.Options(n_ctx=512, parallel=2, threads=1)
CHAT = [{"role": "user", "content": "Name it: free of charge"}]


def tools(folder: Path, said: list[str] | None = None) -> Tools:
    """What an export of these tests may use; what it says is added to `said`."""

    def work(name: str, request: Mapping[str, Any], *, python: Any = None) -> dict[str, Any]:
        return run_worker(name, request, folder, lambda kind, /, **data: None, python=python)

    return Tools(SITE, folder / "log", work, print if said is None else said.append, folder / "shared")


def export(model: Source, quantization: str, folder: Path) -> Path:
    """An export in a new folder below `folder`, named by its quantization."""
    out = folder / quantization
    out.mkdir(parents=True)
    llama_cpp.export(model, quantization, out, tools(folder))
    return out


@contextmanager
def serving(
    model: Path, folder: Path, options: llama_cpp.Options = OPTIONS, *, port: int | None = None
) -> Iterator[Running]:
    """The real server."""
    with running.engine("llama_cpp", model, options, alias="tiny@1", directory=folder, site=SITE, port=port) as served:
        yield served


def changed(export: Path, folder: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(export, folder))


def set_field(file: Path, name: str, value: Any) -> None:
    """Change a number in a GGUF file's header."""
    field = gguf.GGUFReader(file, "r+").fields[name]
    field.parts[field.data[0]][0] = value


def set_config(model: Path, file: str = "config.json", **values: Any) -> None:
    """Change keys of one of a model's JSON files."""
    path = model / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
