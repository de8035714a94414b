"""llama.cpp: GGUF files made by its own converter, served by its own server.

The server is a `llama-server` on PATH (one built for this machine's accelerator), else the one inside the prebuilt
`xllamacpp` wheel; both take the same options. Leaves out: K-quants (they need `llama-quantize`), adapters, drafts.
"""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from orchestrator import processes
from orchestrator.catalog.gpus import Gpu
from orchestrator.config import Model
from orchestrator.engines import _llama_cpp_source as llama_source
from orchestrator.engines import client
from orchestrator.engines.base import Adapter, Launch, Message, Source, Support, Tools
from orchestrator.environments.environment import Environment
from orchestrator.errors import InfrastructureError, InputError
from orchestrator.loadgen import scrape
from orchestrator.plugins import nearest

ENVIRONMENTS: tuple[Environment, ...] = ()
LIBRARIES = ("xllamacpp", "gguf", "torch", "transformers")
STOP_GRACE_S = 10.0
REQUEST_FIELDS = frozenset(
    {"temperature", "top_p", "top_k", "min_p", "repeat_penalty", "max_tokens", "stop", "stream", "stream_options"}
    | {"ignore_eos", "seed", "lora"}
)
MODEL = "model.gguf"
"""The file in an export's folder."""
QUANTIZATIONS = ("F32", "F16", "BF16", "Q8_0")
# fmt: off
_NEEDS_QUANTIZE = (
    "Q2_K", "Q2_K_S", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_0", "Q4_1", "Q4_K_S", "Q4_K_M", "Q5_0", "Q5_1",
    "Q5_K_S", "Q5_K_M", "Q6_K", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS",
    "IQ3_S", "IQ3_M", "IQ4_XS", "IQ4_NL", "TQ1_0", "TQ2_0", "MXFP4_MOE",
)
# fmt: on
_CONTROL_TOKEN, _USER_DEFINED_TOKEN = 3, 4
_SSE_PING_S = 1
"""llama-server notices SIGTERM in an idle stream only at its next ping; its default of 30 s delays every stop."""

CacheType = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"]


class Options(Model):
    """`engine_args` for llama.cpp."""

    n_ctx: int = Field(default=8192, ge=64)
    """Tokens of context over all slots; one request gets n_ctx / parallel, at most what the model was trained for."""
    parallel: int = Field(default=4, ge=1, le=256)
    """Requests that are generated at the same time (slots)."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads that compute; by default as many as the machine has cores."""
    batch_size: int = Field(default=2048, ge=1)
    """Tokens that are submitted together, at most."""
    ubatch_size: int = Field(default=512, ge=1)
    """Tokens that are computed together, at most."""
    n_gpu_layers: int = Field(default=-1, ge=-1)
    """Layers kept in accelerator memory; -1: as many as fit. Without an accelerator it means nothing."""
    flash_attn: Literal["auto", "on", "off"] = "auto"
    """Flash attention."""
    cache_type_k: CacheType = "f16"
    """Number format of the cached keys."""
    cache_type_v: CacheType = "f16"
    """Number format of the cached values; a quantized one needs flash attention."""


def supports(quantization: str, gpu: Gpu | None) -> Support:
    """Every GGUF type runs on every accelerator that the server was built for, and on the CPU."""
    if quantization in QUANTIZATIONS:
        return Support(ok=True)
    if quantization in _NEEDS_QUANTIZE:
        reason = f"quantization {quantization} is not available yet: it needs llama-quantize; now: {_listed()}"
        return Support(ok=False, reason=reason)
    return Support(ok=False, reason=f"unknown quantization {quantization!r}; {nearest(quantization.upper(), _known())}")


def refuses(adapter: Adapter, quantization: str) -> list[str]:
    """Nothing: every export is made of the merged model."""
    return []


def command(launch: Launch, options: Options) -> list[str]:
    """The server's command line. `--fit off`: a context that does not fit is an error, not silently shortened."""
    given: dict[str, Any] = {
        "model": launch.model / MODEL,
        "alias": launch.alias,
        "host": launch.host,
        "port": launch.port,
        "ctx-size": options.n_ctx,
        "parallel": options.parallel,
        "batch-size": options.batch_size,
        "ubatch-size": options.ubatch_size,
        "n-gpu-layers": "all" if options.n_gpu_layers < 0 else options.n_gpu_layers,
        "flash-attn": options.flash_attn,
        "cache-type-k": options.cache_type_k,
        "cache-type-v": options.cache_type_v,
        "sse-ping-interval": _SSE_PING_S,
        "fit": "off",
    }
    if options.threads is not None:
        given["threads"] = options.threads
    flags = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    return [*_launcher(), *flags, "--metrics", "--jinja"]


def files(launch: Launch, options: Options) -> dict[str, str]:
    """None: everything is on the command line."""
    return {}


def options_for(context_tokens: int) -> Options:
    """One slot with the whole context."""
    return Options(n_ctx=max(context_tokens, 64), parallel=1)


def planned(options: Options) -> dict[str, Any]:
    """A slot's share of the context, the slots, and the wider of the two cache types."""
    return {
        "max_model_len": options.n_ctx // options.parallel,
        "max_num_seqs": options.parallel,
        "max_num_batched_tokens": options.ubatch_size,
        "kv_dtype": options.cache_type_k if options.cache_type_k.startswith(("f", "b")) else options.cache_type_v,
    }


def environment(launch: Launch, options: Options) -> dict[str, str]:
    """Threads that wait give their core back, unless the user wants it otherwise.

    ggml's threads spin by default: beside two other busy processes on 2 cores, a token then took 100 ms instead of 1 ms
    (measured). With the layers on an accelerator it makes no difference.
    """
    return {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive")}


def parse_metrics(text: str) -> scrape.EngineMetrics:
    """From the server's Prometheus text. llama.cpp has no number for its KV cache."""
    return scrape.parse(text)


def diagnose(log: str) -> str | None:
    """Nothing that is known yet."""
    return None


def export(source: Source, quantization: str, out: Path, tools: Tools) -> None:
    """Convert the merged model to one GGUF file and check it."""
    converter = llama_source.ensure_converter(tools.site.home)
    made = out / MODEL
    line = [sys.executable, str(converter), str(source.merged), "--outfile", str(made)]
    code = processes.start([*line, "--outtype", quantization.lower()], log=tools.log).wait()
    if code or not made.exists():
        _raise_conversion(source.merged, code, tools.log)
    check(made, source.merged)


def check(gguf_file: Path, merged: Path) -> None:
    """Raises InputError unless the GGUF file treats the chat's special tokens and template as the merged model does.

    A marker such as <|im_start|> that is typed as ordinary text is cut into pieces, and no prompt matches training.
    """
    import gguf

    fields = gguf.GGUFReader(gguf_file).fields
    config = json.loads((merged / "tokenizer_config.json").read_text())
    template = (merged / "chat_template.jinja").read_text()
    kinds = _field(fields, "tokenizer.ggml.token_type") or []
    tokens = _field(fields, "tokenizer.ggml.tokens") or []
    kind_of = dict(zip(tokens, kinds, strict=True))
    problems = _wrong_tokens(kind_of, _markers(merged, template))
    if (_field(fields, "tokenizer.chat_template") or "").strip() != template.strip():
        problems.append("its chat template is not the model's chat_template.jinja")
    end = _field(fields, "tokenizer.ggml.eos_token_id")
    if end is None or tokens[end] != config["eos_token"]:
        problems.append(f"its end token is {tokens[end] if end is not None else None!r}, not {config['eos_token']!r}")
    if problems:
        raise InputError(
            f"the GGUF file made of {merged} would not chat as trained: {'; '.join(problems)}",
            next_step="make the chat markers special tokens of the base's tokenizer (SentencePiece: control symbols)",
        )


def models(launch: Launch) -> list[str]:
    """From /v1/models."""
    return client.models(launch.url)


def attach(launch: Launch) -> None:
    """Nothing: the command serves the model."""


def request_fields(launch: Launch) -> dict[str, Any]:
    """None."""
    return {}


def served_name(launch: Launch) -> str:
    """The alias. The server answers to any name, so only /v1/models tells whether it is ours."""
    return launch.alias


def chat_template(launch: Launch) -> str:
    """From /props."""
    return str(client.call(f"{client.root(launch.url)}/props")["chat_template"])


def prompt_tokens(launch: Launch, messages: Sequence[Message]) -> list[int]:
    """/apply-template, then /tokenize as the chat endpoint does it."""
    prompt = client.call(f"{client.root(launch.url)}/apply-template", {"messages": list(messages)})["prompt"]
    body = {"content": prompt, "add_special": True, "parse_special": True}
    return list(client.call(f"{client.root(launch.url)}/tokenize", body)["tokens"])


def next_token_logprobs(launch: Launch, tokens: Sequence[int], top: int) -> dict[int, float]:
    """/completion for one token; with `post_sampling_probs` off, the softmax over the whole vocabulary.

    The bias changes only what is written, not the probabilities: of a token that is half a character, the server tells
    none.
    """
    body = {
        "prompt": list(tokens),
        "n_predict": 1,
        "n_probs": top,
        "post_sampling_probs": False,
        "temperature": 0,
        "logit_bias": [["a", 1000.0]],
        "cache_prompt": True,
    }
    reply = client.call(f"{client.root(launch.url)}/completion", body)
    return {entry["id"]: entry["logprob"] for entry in reply["completion_probabilities"][0]["top_logprobs"]}


def _launcher() -> list[str]:
    program = shutil.which("llama-server")
    return [program] if program else [sys.executable, "-m", "orchestrator.workers.llama_server"]


def _listed() -> str:
    return ", ".join(QUANTIZATIONS)


def _known() -> list[str]:
    return [*QUANTIZATIONS, *_NEEDS_QUANTIZE]


def _raise_conversion(merged: Path, code: int, log: Path) -> None:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    said = "\n".join(lines[-6:])
    if code > 128:
        raise InfrastructureError(f"llama.cpp's converter was ended by {processes.died_of(code)}:\n{said}")
    raise InputError(f"llama.cpp's converter cannot convert {merged}:\n{said}", next_step=f"read {log}")


def _field(fields: Any, name: str) -> Any:
    return fields[name].contents() if name in fields else None


def _markers(merged: Path, template: str) -> dict[str, bool]:
    """The added tokens that the chat template writes -> whether the tokenizer calls them special."""
    added = json.loads((merged / "tokenizer.json").read_text())["added_tokens"]
    return {token["content"]: bool(token["special"]) for token in added if token["content"] in template}


def _wrong_tokens(kind_of: dict[str, int], markers: dict[str, bool]) -> list[str]:
    """Special markers must be control tokens; added ones that are not special may be user-defined."""
    allowed = {True: {_CONTROL_TOKEN}, False: {_CONTROL_TOKEN, _USER_DEFINED_TOKEN}}
    wrong = [token for token, special in markers.items() if kind_of.get(token) not in allowed[special]]
    return [f"{token!r} is not a control token but type {kind_of.get(token)}" for token in wrong]
