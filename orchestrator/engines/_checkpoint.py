"""Model folders in Hugging Face's layout, as the engines that read them get them: weights are linked, not copied."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.engines.base import Tools

_ADAPTER = "adapter_"


def is_weights(file: Path) -> bool:
    """Whether a file of a model's folder holds weights, or says which of them holds what."""
    names = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json")
    return file.name.endswith(names) and not file.name.startswith(_ADAPTER)


def copy(folder: Path, out: Path, wanted: Callable[[Path], bool] = lambda file: True) -> None:
    """The wanted files of a model's folder into `out`: those with weights as hard links where the disk allows it, so
    that they take no second place, all others as copies, which may be changed.
    """
    for file in folder.iterdir():
        if file.is_file() and wanted(file):
            _link(file.resolve(), out / file.name) if is_weights(file) else shutil.copy(file, out / file.name)


def plain(merged: Path, dtype: str, out: Path, tools: Tools) -> None:
    """The merged model's own files where it has that type of numbers, else converted ones."""
    if json.loads((merged / "config.json").read_text())["dtype"] == dtype:
        copy(merged, out)
    else:
        copy(merged, out, lambda file: not is_weights(file))
        tools.worker("cast", {"model": str(merged), "dtype": dtype, "out": str(out)})
        change(out / "config.json", dtype=dtype)


def change(path: Path, **values: Any) -> None:
    """Set keys of a JSON file, such as config.json."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values, indent=2, ensure_ascii=False) + "\n")


def _link(file: Path, name: Path) -> None:
    try:
        os.link(file, name)
    except OSError:  # another disk, or one that has no links
        shutil.copy(file, name)
