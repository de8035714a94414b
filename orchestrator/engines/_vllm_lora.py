"""An adapter that vLLM serves on its base, without a merge.

The server starts with the base, and with the tokenizer, chat template and end tokens that lie beside the adapter: vLLM
takes them from nowhere else. The adapter is loaded into it once it answers, by a request that says why where it fails;
one that is only named on the command line is first looked at by a user's request, and can end the engine (0.32).
"""

import json
from pathlib import Path

from orchestrator.engines import _adapter, _adapter_base, _checkpoint, client
from orchestrator.engines.base import LORA, Adapter, Launch, Source, Tools
from orchestrator.errors import EngineError, InputError

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""That vLLM can be told to make room for; an adapter takes the room of the next one."""
_CLASSIFIERS = {"classifier", "score"}
_MERGE = _adapter_base.MERGE


def refuses(adapter: Adapter, quantization: str) -> list[str]:
    """Why vLLM cannot apply the adapter to its base, each with what would do; a merged model is none of these."""
    if quantization.lower() != LORA:
        return []
    whole = [name for name in adapter.modules_to_save if name not in _CLASSIFIERS]
    reasons = {
        "DoRA": adapter.use_dora,
        f"bias {adapter.bias!r}": adapter.bias != "none",
        f"modules that were trained as a whole ({', '.join(whole)})": bool(whole),
        "a vocabulary that was resized": adapter.resized_vocabulary,
        f"init_lora_weights {adapter.init_lora_weights!r}, which changed the base": _adapter.changes_base(adapter),
        f"{', '.join(adapter.variants)}": bool(adapter.variants),
        f"rank {adapter.rank}: {RANKS[-1]} is the largest": adapter.rank > RANKS[-1],
    }
    return [f"vLLM does not load an adapter with {reason}; {_MERGE}" for reason, holds in reasons.items() if holds]


def export(source: Source, out: Path, tools: Tools) -> None:
    """The adapter, the tokenizer and end tokens that it was trained with, and which base it belongs to.

    Raises InputError for an adapter that vLLM does not load, or of another base.
    """
    adapter, found = _adapter_base.both(source)
    reasons = [reason.removesuffix(f"; {_MERGE}") for reason in refuses(_adapter.read(adapter), LORA)]
    if reasons := reasons or _adapter_base.misfits(adapter, found):
        raise InputError("; ".join(reasons), next_step=_MERGE)
    if _adapter.was_trained_quantized(adapter):
        tools.say(_adapter_base.ON_16_BITS)
    _checkpoint.copy(source.merged, out, lambda file: not _checkpoint.is_weights(file))
    _checkpoint.copy(adapter, out, lambda file: file.name in (_adapter.CONFIG, _adapter.WEIGHTS))
    _adapter_base.write(found, out)
    ends = json.loads((source.merged / "generation_config.json").read_text())["eos_token_id"]
    (out / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}, indent=2) + "\n")


def is_adapter(launch: Launch) -> bool:
    """Whether the export is, or will be, an adapter and not a whole model."""
    return launch.adapter is not None or (launch.model / _adapter.CONFIG).exists()


def base_name(launch: Launch) -> str:
    """What requests would call the base without the adapter."""
    return f"{launch.alias}-base"


def room(launch: Launch) -> int:
    """The smallest of vLLM's ranks that holds the adapter."""
    rank = (launch.adapter or _adapter.read(launch.model)).rank
    return next(size for size in RANKS if size >= rank)


def load(launch: Launch) -> None:
    """Load the adapter under the alias; nothing where it is loaded. Raises EngineError with vLLM's reason."""
    if launch.alias in client.models(launch.url):
        return
    body = {"lora_name": launch.alias, "lora_path": str(launch.model)}
    try:
        client.get_or_post(f"{launch.url}/load_lora_adapter", body, timeout_s=600)
    except client.StatusError as error:
        raise EngineError(
            f"vLLM refuses the adapter {launch.alias}: {_reason(error.body)}",
            next_step=f"serve it on the base that it was trained on, or {_MERGE}",
        ) from error


def _reason(body: str) -> str:
    """The message in one of vLLM's error replies."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:500]
