"""llama.cpp: GGUF files made by its own tools, served by its own server.

On a CPU the server is the one inside the prebuilt `xllamacpp` wheel; on an accelerator, and for quantizing, programs
are built from the pinned source. A `llama-server` on PATH does as well: all take the same options. What an export is
stands in its `export.json`, and a server that runs something else is not ready. Leaves out: drafts, several adapters.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from orchestrator.catalog.gpus import Gpu
from orchestrator.config import Model
from orchestrator.engines import _llama_cpp_export as making
from orchestrator.engines import _llama_cpp_gguf as gguf_file
from orchestrator.engines import _llama_cpp_log, client
from orchestrator.engines import _llama_cpp_lora as lora
from orchestrator.engines import _llama_cpp_record as records
from orchestrator.engines._causes import cause
from orchestrator.engines._llama_cpp_environments import CONVERTERS, SERVER, TOOLS, quantizer, server
from orchestrator.engines._llama_cpp_export import CONVERTED, MODEL
from orchestrator.engines._llama_cpp_gguf import Header
from orchestrator.engines._llama_cpp_lora import ADAPTER
from orchestrator.engines.base import LORA, Adapter, Launch, Message, Source, Support, Tools
from orchestrator.environments.environment import Environment
from orchestrator.errors import EngineError, InputError
from orchestrator.loadgen import scrape
from orchestrator.planner.serving.servable import refusal
from orchestrator.planner.serving.serving import Serving
from orchestrator.plugins import nearest

ENVIRONMENTS: tuple[Environment, ...] = (SERVER, CONVERTERS, TOOLS)
LIBRARIES = ("gguf", "torch", "transformers")
WORKERS = ("calibration_text", "calibration")
STOP_GRACE_S = 10.0
REQUEST_FIELDS = frozenset(
    {"temperature", "top_p", "top_k", "min_p", "repeat_penalty", "max_tokens", "stop", "stream", "stream_options"}
    | {"ignore_eos", "seed", "lora"}
)
# fmt: off
_QUANTIZED = (
    "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "Q3_K_L", "Q3_K_M", "Q3_K_S",
    "Q2_K", "Q2_K_S", "IQ4_NL", "IQ4_XS", "IQ3_M", "IQ3_S", "IQ3_XS", "IQ3_XXS", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS",
    "IQ1_M", "IQ1_S", "TQ2_0", "TQ1_0", "MXFP4_MOE",
)
# fmt: on
QUANTIZATIONS = (*CONVERTED, *_QUANTIZED, LORA)
SUGGESTED = ("F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")
"""Those that lose little; a narrower one is cheaper, too, and somebody's own choice."""
_ON_CPU_ONLY = ("TQ1_0", "TQ2_0")
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
    """Layers kept in accelerator memory; -1: all of them. Without an accelerator it means nothing."""
    flash_attn: Literal["auto", "on", "off"] = "auto"
    """Flash attention."""
    cache_type_k: CacheType = "f16"
    """Number format of the cached keys."""
    cache_type_v: CacheType = "f16"
    """Number format of the cached values; a quantized one needs flash attention."""


def supports(quantization: str, gpu: Gpu | None) -> Support:
    """A CPU runs every type, an accelerator those that it has kernels for."""
    if quantization not in QUANTIZATIONS:
        known = nearest(quantization.upper(), list(QUANTIZATIONS))
        return Support(ok=False, reason=f"unknown quantization {quantization!r}; {known}")
    if gpu is None:
        return Support(ok=True)
    if quantization in _ON_CPU_ONLY:
        return Support(ok=False, reason=f"{quantization} has kernels for CPUs only; use Q2_K or IQ2_S on {gpu.kind}")
    plain = {LORA: "F16", "F32": "fp32"}.get(quantization, quantization)
    reason = refusal(Serving(engine="llama_cpp", quantization=plain), gpu)
    return Support(ok=reason is None, reason=reason or "")


def refuses(adapter: Adapter, quantization: str) -> list[str]:
    """An adapter that is merged can be anything, one that is applied at run time only what GGUF can say."""
    return lora.refusals(adapter) if quantization == LORA else []


def command(launch: Launch, options: Options) -> list[str]:
    """The server's command line.

    `--fit off`: a context that does not fit is an error, not silently shortened. `--check-tensors`: weights that are no
    numbers are an error; without it a damaged file answers with blanks (measured).
    """
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
    if _has_adapter(launch):
        given["lora"] = launch.model / ADAPTER
    flags = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    return [*server(launch.installed), *flags, "--check-tensors", "--metrics", "--jinja"]


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
    """What the server's log tells of why it cannot go on."""
    return cause(log, _llama_cpp_log.CAUSES)


def export(source: Source, quantization: str, out: Path, tools: Tools) -> None:
    """Write one GGUF file of the merged model, or those of adapter and base; check them, and record what they are."""
    made_by, imatrix = {"converter": str(CONVERTERS)}, False
    if quantization == LORA:
        lora.export(source, out, tools)
    elif quantization in CONVERTED:
        making.convert(source.merged, out / MODEL, quantization, tools)
    else:
        programs = quantizer(tools.site)
        imatrix = making.quantize(source, quantization, out, tools, programs)
        made_by["quantizer"] = str(programs)
    made, adapter = check(out, source, quantization)
    records.write(records.of_files(made, adapter, quantization, made_by, imatrix=imatrix), out)
    tools.say(_told(made, quantization, imatrix))


def check(out: Path, source: Source, quantization: str) -> tuple[Header, Header | None]:
    """The files' headers, of the model and of the adapter.

    Raises InputError unless an export chats as trained and holds what was asked.
    """
    made, adapter = gguf_file.read(out / MODEL), None
    if problems := gguf_file.chat_problems(made, source.merged):
        raise InputError(
            f"the GGUF file made of {source.merged} would not chat as trained: {'; '.join(problems)}",
            next_step="make the chat markers special tokens of the base's tokenizer (SentencePiece: control symbols)",
        )
    if quantization == LORA:
        adapter = gguf_file.read(out / ADAPTER)
        problems = lora.problems(adapter, source)
    else:
        problems = gguf_file.type_problems(made, quantization)
    if problems:
        raise InputError(f"{out} is not {quantization}: {'; '.join(problems)}", next_step="export it again")
    return made, adapter


def models(launch: Launch) -> list[str]:
    """From /v1/models."""
    return client.models(launch.url)


def attach(launch: Launch) -> None:
    """Check that the server runs the exported files with the whole context, and put the adapter's scale to 1.

    It answers to any model's name, keeps adapters on although told otherwise at its start (commit 0c1e570), and cuts a
    context without an error.
    """
    record = records.read(launch.model)
    problems = records.broken(record, launch.model / MODEL, launch.model / ADAPTER) if record else []
    props = _get(launch, "props")
    if Path(props["model_path"]) != launch.model / MODEL:
        problems.append(f"it runs {props['model_path']}, not {launch.model / MODEL}")
    problems += _context_problems(launch, props["default_generation_settings"]["n_ctx"])
    if _has_adapter(launch):
        client.get_or_post(f"{client.root(launch.url)}/lora-adapters", request_fields(launch)["lora"])
        scales = [entry["scale"] for entry in _get(launch, "lora-adapters")]
        problems += [] if scales == [1.0] else [f"its adapters have the scales {scales}, not 1"]
    if problems:
        raise EngineError(
            f"the server of {launch.alias} does not serve what was exported: {'; '.join(problems)}",
            next_step="export the model again",
        )


def request_fields(launch: Launch) -> dict[str, Any]:
    """The adapter, by the number that the server gave it, and its scale."""
    return {"lora": [{"id": 0, "scale": 1.0}]} if _has_adapter(launch) else {}


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


def _has_adapter(launch: Launch) -> bool:
    """Of an export that is only planned, the launch says it."""
    return launch.adapter is not None or (launch.model / ADAPTER).exists()


def _get(launch: Launch, path: str) -> Any:
    return json.loads(client.get_or_post(f"{client.root(launch.url)}/{path}"))


def _context_problems(launch: Launch, found: int) -> list[str]:
    """A slot has its share of n_ctx, or the context that the model was trained for."""
    if launch.options is None:
        return []
    asked = launch.options.n_ctx // launch.options.parallel
    trained = _get(launch, "v1/models")["data"][0]["meta"]["n_ctx_train"]
    return [f"a request gets {found} tokens of context, not {asked}"] if found < min(asked, trained) else []


def _told(made: Header, quantization: str, imatrix: bool) -> str:
    """One line about an export for whoever follows the run."""
    fell = ", ".join(f"{count} in {kind}" for kind, count in gguf_file.fallen_back(made, quantization).items())
    rows = f"; rows that 256 does not divide: {fell}" if fell else ""
    return f"{quantization}: {made.bits_per_weight:.2f} bits a weight{', importance matrix' * imatrix}{rows}"
