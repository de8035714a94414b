"""Writes a model's weights in another number format, file by file.

Request: model (folder with safetensors), dtype (torch's name), out (folder).
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from orchestrator.workers.protocol import main

INDEX = "model.safetensors.index.json"


def work(request: dict[str, Any]) -> dict[str, Any]:
    """The same files, with floating point tensors in the wanted format."""
    folder, out, dtype = Path(request["model"]), Path(request["out"]), getattr(torch, request["dtype"])
    total = sum(cast(file, out / file.name, dtype) for file in sorted(folder.glob("*.safetensors")))
    if (folder / INDEX).exists():
        index = json.loads((folder / INDEX).read_text())
        index["metadata"]["total_size"] = total
        (out / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    return {"bytes": total}


def cast(file: Path, out: Path, dtype: torch.dtype) -> int:
    """Bytes of the tensors of one file, once they are written."""
    with safe_open(file, framework="pt") as found:
        tensors = {name: found.get_tensor(name) for name in found.keys()}  # noqa: SIM118
        metadata = found.metadata()
    made = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    save_file(made, out, metadata)
    return sum(tensor.nbytes for tensor in made.values())


if __name__ == "__main__":
    main(work, silent_s=4 * 3600.0)
