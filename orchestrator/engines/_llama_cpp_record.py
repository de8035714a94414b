"""`export.json`: what an export is and what it was made with, so that a server can be held to it.

A GGUF file has no name of its own: one that was quantized otherwise, or an adapter with another scale, serves just as
well. All that tells them apart stands before the weights, so a digest of that part is kept: that takes a hundredth of a
second, while the reader needs ten for the fields of a large vocabulary.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from orchestrator.config import Model
from orchestrator.engines import _llama_cpp_gguf as gguf_file
from orchestrator.engines._llama_cpp_gguf import Header
from orchestrator.errors import InputError

FILE = "export.json"


class Head(Model):
    """What stands before the weights of one file."""

    file: str
    """Its name in the folder."""
    bytes: int
    """Up to the first weight."""
    sha256: str
    """Of these bytes."""


class Calibration(Model):
    """What the importance matrix was computed from: `calibration.json`."""

    rows: int
    """Chats, drawn from the training rows."""
    tokens: int
    """That the model read of them."""
    seed: int
    """Of the draw."""


class AdapterRecord(Model):
    """How strongly an adapter acts: llama.cpp multiplies it by alpha / rank."""

    rank: int
    """The largest of all modules."""
    alpha: float
    """As it stands in the GGUF file."""
    tensors: int
    """Of the file."""


class Record(Model):
    """One export."""

    engine: str = "llama_cpp"
    """That serves it."""
    quantization: str
    """As in the recipe."""
    file_type: str
    """As it stands in the GGUF file of the model; of an adapter's base, its 16 bit type."""
    types: dict[str, int]
    """Number of tensors by type."""
    bits_per_weight: float
    """Measured on the file: rows that 256 does not divide take more bits than the quantization's name promises."""
    imatrix: bool = False
    """Whether an importance matrix was used."""
    adapter: AdapterRecord | None = None
    """None: adapter and base are one."""
    made_by: dict[str, str]
    """Tool -> its version."""
    heads: list[Head]
    """Of every GGUF file."""


def write(record: Record, folder: Path) -> None:
    """Put it into an export's folder."""
    (folder / FILE).write_text(record.model_dump_json(indent=2) + "\n")


def read(folder: Path) -> Record | None:
    """None for an export of a time when there were none. Raises InputError for a broken one."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return Record.model_validate_json(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is not the record of an export: {error}", next_step="export it again") from error


def of_files(
    made: Header, adapter: Header | None, quantization: str, made_by: dict[str, str], *, imatrix: bool = False
) -> Record:
    """Of files that were made and checked."""
    return Record(
        quantization=quantization,
        file_type=made.file_type,
        types=made.types,
        bits_per_weight=round(made.bits_per_weight, 3),
        imatrix=imatrix,
        adapter=of_adapter(adapter) if adapter else None,
        made_by=made_by,
        heads=[_head(one.path, one.weights_at) for one in (made, adapter) if one],
    )


def of_adapter(adapter: Header) -> AdapterRecord:
    """Of an adapter's file."""
    ranks = [tensor.shape[0] for tensor in adapter.tensors if tensor.name.endswith(".lora_b")]
    alpha = round(float(adapter.get("adapter.lora.alpha")), 6)
    return AdapterRecord(rank=max(ranks), alpha=alpha, tensors=len(adapter.tensors))


def broken(record: Record, model: Path, adapter: Path) -> list[str]:
    """Where the files that are there are not the recorded ones, in words."""
    files = [path for path in (model, adapter) if path.exists()]
    if [_head(path, head.bytes) for path, head in zip(files, record.heads, strict=False)] == record.heads:
        return []
    return _differences(record, model, adapter) or ["its files do not begin as those that were exported"]


def _differences(record: Record, model: Path, adapter: Path) -> list[str]:
    made = gguf_file.read(model)
    found: Sequence[tuple[str, object, object]] = [
        ("quantization", made.file_type, record.file_type),
        ("tensor types", made.types, record.types),
        ("adapter", of_adapter(gguf_file.read(adapter)) if adapter.exists() else None, record.adapter),
    ]
    return [f"its {what} is {here}, not {wanted}" for what, here, wanted in found if here != wanted]


def _head(path: Path, length: int) -> Head:
    with path.open("rb") as file:
        return Head(file=path.name, bytes=length, sha256=hashlib.sha256(file.read(length)).hexdigest())
