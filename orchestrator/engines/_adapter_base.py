"""The base that an exported adapter is served on: where it lies, and how it is told from another one.

`base.json` in the export holds its path and a fingerprint of its weights. Engines load an adapter into any base whose
matrices have the same shapes, and leave out the layers that the base does not have (vLLM 0.32, PEFT): the model then
answers, and wrongly.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.config import Model
from orchestrator.engines import _adapter, _checkpoint
from orchestrator.engines.base import LORA, Adapter, Source, Tools
from orchestrator.errors import InputError

FILE = "base.json"
_SAMPLE = 2**20
_LAYER = re.compile(r"\blayers\.\d+\.")
_PLAIN = ("F32", "F16", "BF16")
"""Number formats whose tensors have the shape of their matrix; quantized ones are packed."""
MERGE = "export the merged model instead, such as quantization BF16"
ON_16_BITS = "the adapter was trained on a 4-bit base and is served on the 16-bit one: parity shows by how much"
_AGAIN = "put the base back that the adapter was trained on, or export the merged model"


class Base(Model):
    """What `base.json` says."""

    path: str
    """Absolute, of the base's folder."""
    fingerprint: str
    """Of its weights."""


def both(source: Source) -> tuple[Path, Path]:
    """Folders of adapter and base. Raises InputError after full fine-tuning."""
    if source.adapter is None:
        raise InputError("there is no adapter to serve: the whole model was trained", next_step=MERGE)
    return source.adapter, source.base or Path(_adapter.settings(source.adapter)["base_model_name_or_path"])


def lay_out(
    source: Source, out: Path, within: Path, refuses: Callable[[Adapter, str], list[str]], tools: Tools
) -> None:
    """The base's weights and settings in `out`, with the tokenizer and the end tokens that were trained; the adapter in
    the folder `within`. Raises InputError for an adapter that the engine refuses, or of another base.
    """
    adapter, base = both(source)
    reasons = refuses(_adapter.read(adapter), LORA) or misfits(adapter, base)
    if reasons:
        raise InputError("; ".join(reason.removesuffix(f"; {MERGE}") for reason in reasons), next_step=MERGE)
    if _adapter.was_trained_quantized(adapter):
        tools.say(ON_16_BITS)
    _checkpoint.copy(source.merged, out, lambda file: not _checkpoint.is_weights(file))
    _checkpoint.copy(base, out, lambda file: _checkpoint.is_weights(file) or file.name == "config.json")
    within.mkdir(exist_ok=True)
    _checkpoint.copy(adapter, within, lambda file: file.name in (_adapter.CONFIG, _adapter.WEIGHTS))


def write(base: Path, export: Path) -> None:
    """Put `base.json` into an export."""
    made = Base(path=str(base.resolve()), fingerprint=fingerprint(base))
    (export / FILE).write_text(made.model_dump_json(indent=2) + "\n")


def find(export: Path) -> Path:
    """The folder of the base. Raises InputError when it is gone, or when there is another model in its place."""
    recorded = Base.model_validate_json((export / FILE).read_text())
    folder = Path(recorded.path)
    if not (folder / "config.json").exists():
        raise InputError(f"the base of the adapter in {export} is gone: {folder} is not a model", next_step=_AGAIN)
    if fingerprint(folder) != recorded.fingerprint:
        raise InputError(f"{folder} is not the base of the adapter in {export} any more", next_step=_AGAIN)
    return folder


def fingerprint(folder: Path) -> str:
    """16 hex digits of the sizes, the first and the last megabyte of all files with weights.

    A fine-tune moves every matrix, so that a sample tells it, and a start does not wait for 100 GB to be read.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            size = path.stat().st_size
            digest.update(f"{path.name} {size} ".encode() + file.read(_SAMPLE))
            file.seek(max(0, size - _SAMPLE))
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()[:16]


def misfits(adapter: Path, base: Path) -> list[str]:
    """Why the adapter cannot be of that base, by the shapes of their matrices; empty where nothing says so.

    Raises InputError for a file of weights that cannot be read.
    """
    trained = _adapter.header(adapter / _adapter.WEIGHTS)
    inputs, outputs = _matrices(trained, ".lora_A.weight"), _matrices(trained, ".lora_B.weight")
    weights: dict[str, tuple[int, ...]] = {}
    for path in sorted(base.glob("*.safetensors")):
        weights |= _matrices(_adapter.header(path), ".weight")
    deepest, depth = _deepest(inputs), _deepest(weights)
    if deepest > depth >= 0:
        return [f"the adapter is of another base: it has a layer {deepest}, and {base} ends with layer {depth}"]
    for name in sorted(inputs.keys() & outputs.keys() & weights.keys()):
        wanted = (outputs[name][0], inputs[name][1])
        if wanted != weights[name]:
            return [f"the adapter is of another base: its {name} is {wanted}, that of {base} {weights[name]}"]
    return []


def _matrices(header: Mapping[str, Any], ending: str) -> dict[str, tuple[int, ...]]:
    """Shapes of a file's plain matrices by module, from its layer on: what comes before differs between the two."""
    found = {}
    for name, tensor in header.items():
        start = _LAYER.search(name)
        if start and name.endswith(ending) and tensor["dtype"] in _PLAIN and len(tensor["shape"]) == 2:
            found[name[start.start() :].removesuffix(ending)] = tuple(tensor["shape"])
    return found


def _deepest(modules: Iterable[str]) -> int:
    """The last layer among them; -1 where there is none."""
    return max((int(name.split(".")[1]) for name in modules), default=-1)
