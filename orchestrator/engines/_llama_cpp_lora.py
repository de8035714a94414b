"""An adapter beside its base, both as GGUF: what llama.cpp can apply at run time, and with which scale.

llama.cpp multiplies an adapter by alpha / rank, whatever PEFT does: of rsLoRA, which divides by the root of the rank,
its converter keeps alpha alone, and the adapter would act too weakly (measured: as plain LoRA). So the file gets the
alpha with which alpha / rank is PEFT's scale. What the base cannot be without (whole modules, other initial weights)
is refused; of some of it the converter takes no notice.
"""

import json
import math
import tempfile
from pathlib import Path

from orchestrator.engines import _adapter, _checkpoint
from orchestrator.engines._llama_cpp_environments import ADAPTER_CONVERTER, script
from orchestrator.engines._llama_cpp_export import MODEL, convert, plain_type, run
from orchestrator.engines._llama_cpp_gguf import Header
from orchestrator.engines.base import Adapter, Source, Tools
from orchestrator.errors import InputError

ADAPTER = "adapter.gguf"
_ALPHA = "adapter.lora.alpha"
_MERGE = "export the merged model instead, such as quantization: F16 or Q8_0"


def refusals(adapter: Adapter) -> list[str]:
    """Why llama.cpp cannot apply it to its base at run time, each with what would do."""
    reasons = {
        "DoRA: its adapters have no magnitudes": adapter.use_dora,
        f"whole modules were trained: {', '.join(adapter.modules_to_save)}": bool(adapter.modules_to_save),
        "the vocabulary was resized: embedding and head are part of the adapter": adapter.resized_vocabulary,
        f"biases were trained: {adapter.bias}": adapter.bias != "none",
        "some modules have an alpha of their own, and its adapters one for all": adapter.alpha_pattern,
        "rsLoRA with ranks by module, and its adapters have one alpha for all": (
            adapter.use_rslora and adapter.rank_pattern
        ),
        f"it is more than a product of two matrices: {', '.join(adapter.variants)}": bool(adapter.variants),
        f"{adapter.init_lora_weights} changed the base's weights": _adapter.changes_base(adapter),
    }
    return [f"llama.cpp cannot apply this adapter: {reason}; {_MERGE}" for reason, holds in reasons.items() if holds]


def alpha(adapter: Adapter) -> float:
    """With which alpha / rank is PEFT's scale: alpha / rank, or alpha / sqrt(rank) for rsLoRA."""
    return adapter.alpha * (math.sqrt(adapter.rank) if adapter.use_rslora else 1.0)


def export(source: Source, out: Path, tools: Tools) -> None:
    """Write the base (`model.gguf`, as wide as its weights are) and `adapter.gguf`. Raises InputError."""
    folder, base = _both(source)
    adapter = _adapter.read(folder)
    if reasons := refusals(adapter):
        raise InputError("; ".join(reason.removesuffix(f"; {_MERGE}") for reason in reasons), next_step=_MERGE)
    if _was_quantized(folder):
        tools.say("the adapter was trained on a 4-bit base and is served on the 16-bit one: parity shows by how much")
    with tempfile.TemporaryDirectory(dir=out.parent, prefix="gguf-") as scratch:
        trained = base_as_trained(base, source.merged, Path(scratch))
        convert(trained, out / MODEL, plain_type(trained), tools)
        arguments = [str(folder), "--base", str(trained), "--outfile", str(out / ADAPTER), "--outtype", "f32"]
        command = [*script(tools.site, ADAPTER_CONVERTER), *arguments]
        run(command, f"llama.cpp cannot convert the adapter {folder}", tools)
    write_alpha(out / ADAPTER, alpha(adapter))


def base_as_trained(base: Path, merged: Path, folder: Path) -> Path:
    """The base's weights with the tokenizer, chat template and end tokens that training left, as links in `folder`.

    Markers of turns and end tokens are often set by fine-tuning, and stand only in the adapter's and merged folders.
    """
    for origin, wanted in ((base, True), (merged, False)):
        for file in origin.iterdir():
            if file.is_file() and _is_of_base(file) is wanted:
                (folder / file.name).symlink_to(file.resolve())
    return folder


def write_alpha(adapter: Path, value: float) -> None:
    """Set the alpha of an adapter's file in place."""
    import gguf

    field = gguf.GGUFReader(adapter, "r+").fields[_ALPHA]
    field.parts[field.data[0]][0] = value


def problems(made: Header, source: Source) -> list[str]:
    """Where a file is not the adapter that was trained."""
    assert source.adapter is not None, "the file was made of it"
    wanted, found = alpha(_adapter.read(source.adapter)), float(made.get(_ALPHA))
    scale = [] if math.isclose(found, wanted, rel_tol=1e-6) else [f"its alpha is {found}, not {wanted}"]
    return scale + ([] if made.tensors else ["it has no tensors"])


def _both(source: Source) -> tuple[Path, Path]:
    """Adapter and base."""
    if source.adapter is None:
        raise InputError(
            "there is no adapter to serve: the whole model was trained", next_step="choose another quantization"
        )
    base = source.base or Path(_adapter.settings(source.adapter)["base_model_name_or_path"])
    if not (base / "config.json").exists():
        raise InputError(f"the adapter's base {base} is not a model's folder", next_step="name it as base_model")
    return source.adapter, base


def _is_of_base(file: Path) -> bool:
    return file.name == "config.json" or _checkpoint.is_weights(file)


def _was_quantized(adapter: Path) -> bool:
    training = adapter / "training.json"
    return training.exists() and bool(json.loads(training.read_text()).get("quantization"))
