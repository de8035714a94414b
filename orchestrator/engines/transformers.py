"""transformers' own server, `transformers serve`: the reference, and the fallback that needs no installation.

It runs with the interpreter that runs orch, one request after another, whatever model transformers can load. What its
API does not tell is left unknown: tokens, log-probabilities, metrics. Its streams end without [DONE]. Leaves out its
continuous batching, which samples every request as the first one was.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from orchestrator.catalog.gpus import Gpu
from orchestrator.config import Model
from orchestrator.engines import _adapter, _adapter_base, _chat_tokens, _checkpoint, client
from orchestrator.engines._causes import Causes, cause
from orchestrator.engines.base import LORA, Adapter, Launch, Message, Source, Support, Tools
from orchestrator.environments.environment import Environment
from orchestrator.errors import InputError
from orchestrator.loadgen.scrape import EngineMetrics
from orchestrator.plugins import nearest

ENVIRONMENTS: tuple[Environment, ...] = ()
LIBRARIES = ("transformers", "torch", "peft")
STOP_GRACE_S = 10.0
REQUEST_FIELDS = frozenset(
    {"temperature", "top_p", "max_tokens", "stop", "stream", "stream_options", "seed", "generation_config"}
)
"""Another field is refused with status 422; stream_options is taken and not needed, as usage always comes."""
_DTYPES = {"BF16": "bfloat16", "FP16": "float16", "FP32": "float32"}
QUANTIZATIONS = (*_DTYPES, LORA)
_SAMPLING = {"do_sample": True, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "max_new_tokens": 1024}
"""Without `do_sample` a temperature means nothing, and the rest would come from the model's generation_config.json; the
length is the server's own default, which a request with such settings would not get.
"""
_PINNED = re.compile(r"Server is pinned to '(?P<model>[^']*)'")
_CAUSES: Causes = (
    (r"Missing dependencies for serving", "{0}: its server needs more packages: pip install 'orch[serve]'"),
    (r"No module named '?(transformers|torch)\b", "{0}: it is not installed: pip install 'orch[train]'"),
    (r"OutOfMemoryError: .*", "{0}: take a smaller model or quantization, or a GPU with more memory"),
    (r"DefaultCPUAllocator: can't allocate memory: .*", "{0}: take a smaller model, or a machine with more memory"),
    (r"\[Errno 98\].*address already in use", "{0}: another process has its port"),
    (r"The checkpoint .* Transformers does not recognize this architecture", "{0}: a newer transformers may know it"),
    (r"Error no file named .*", "{0}: export the model again"),
)


class Options(Model):
    """`engine_args` for transformers."""

    device: str = "auto"
    """Where it computes: auto, cpu, cuda:0 ..."""
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention implementation."""
    compile: bool = False
    """Compile the model for faster decoding, with a cache of fixed size."""


def supports(quantization: str, gpu: Gpu | None) -> Support:
    """Plain weights and adapters, wherever torch computes."""
    if quantization in QUANTIZATIONS:
        return Support(ok=True)
    known = nearest(quantization.upper(), list(QUANTIZATIONS))
    return Support(ok=False, reason=f"transformers does not serve quantization {quantization!r}; {known}")


def refuses(adapter: Adapter, quantization: str) -> list[str]:
    """PEFT applies the adapter, whatever modules and scales it has, but for those below.

    transformers 5.23 does not find DoRA's magnitudes in an adapter's file and goes on with new ones: the logits of a
    tiny model were wrong by a third.
    """
    if quantization != LORA:
        return []
    reasons = {
        "transformers loads a DoRA adapter wrongly": adapter.use_dora,
        f"init_lora_weights {adapter.init_lora_weights!r} has changed the base": _adapter.changes_base(adapter),
        "the adapter has more tokens than its base": adapter.resized_vocabulary,
    }
    return [f"{reason}; {_adapter_base.MERGE}" for reason, holds in reasons.items() if holds]


def command(launch: Launch, options: Options) -> list[str]:
    """The command line. Raises InputError for a path that the server would read as another."""
    if "@" in str(launch.model):
        raise InputError(
            f"transformers serve takes what follows an @ for a revision: {launch.model}",
            next_step="set ORCH_HOME to a folder without an @ in its path",
        )
    flags = {"host": launch.host, "port": launch.port, "device": options.device}
    flags["attn-implementation"] = options.attn_implementation
    given = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    # -P: a file transformers.py in the folder that orch was called from is not taken for the library
    program = [*launch.installed.python, "-P", "-m", "transformers.cli.transformers", "serve", str(launch.model)]
    return [*program, *given, *(["--compile"] if options.compile else [])]


def files(launch: Launch, options: Options) -> dict[str, str]:
    """None."""
    return {}


def options_for(context_tokens: int) -> Options:
    """The defaults: the context is the model's own."""
    return Options()


def environment(launch: Launch, options: Options) -> dict[str, str]:
    """Nothing is fetched, and /v1/models finds no other model: it would list the hub's cache, and fail without one."""
    return {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(launch.directory)}


def diagnose(log: str) -> str | None:
    """Packages that are missing, memory, the port, a model that it cannot load."""
    return cause(log, _CAUSES)


def parse_metrics(text: str) -> EngineMetrics:
    """Nothing: the server has no metrics."""
    return EngineMetrics()


def export(source: Source, quantization: str, out: Path, tools: Tools) -> None:
    """The merged model with the number format that it is loaded in, or base and adapter in one folder: an adapter that
    lies in a model's folder is loaded on top of it.
    """
    if quantization == LORA:
        _adapter_base.lay_out(source, out, out, refuses, tools)
    else:
        _checkpoint.copy(source.merged, out)
        _checkpoint.change(out / "config.json", dtype=_DTYPES[quantization])


def models(launch: Launch) -> list[str]:
    """The model that it is pinned to, which it names when another one is asked for."""
    try:
        client.get_or_post(f"{launch.url}/chat/completions", {"model": "", "messages": []})
    except client.StatusError as error:
        if found := _PINNED.search(str(error)):
            return [found["model"]]
        raise
    return []


def attach(launch: Launch) -> None:
    """Nothing: the command serves the model."""


def request_fields(launch: Launch) -> dict[str, Any]:
    """What sampling the canonical fields cannot say."""
    return {"generation_config": json.dumps(_SAMPLING)}


def served_name(launch: Launch) -> str:
    """The model's path: the server has no other name for it."""
    return str(launch.model)


def chat_template(launch: Launch) -> str | None:
    """The one in the model's folder."""
    return _chat_tokens.template(launch.model)


def prompt_tokens(launch: Launch, messages: Sequence[Message]) -> list[int] | None:
    """By the files in the model's folder."""
    return _chat_tokens.prompt_ids(launch.model, messages)


def next_token_logprobs(launch: Launch, tokens: Sequence[int], top: int) -> dict[int, float]:
    """None: the server tells no probabilities, and takes no token ids."""
    return {}
