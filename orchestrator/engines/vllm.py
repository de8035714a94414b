"""vLLM: merged, quantized and unmerged models as safetensors, served on GPUs and on CPUs.

An adapter is served on its base: the server starts with the base, and the adapter is loaded into it under the alias.
Written for 0.32. Leaves out pipeline and data parallelism, sleep mode and speculative decoding.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from orchestrator.config import Model
from orchestrator.engines import _adapter_base, _vllm_export, _vllm_formats, _vllm_log, _vllm_lora, client
from orchestrator.engines._causes import cause
from orchestrator.engines._vllm_environments import LLM_COMPRESSOR, VLLM
from orchestrator.engines.base import Launch, Message
from orchestrator.errors import EngineError
from orchestrator.loadgen import scrape

ENVIRONMENTS = (VLLM, LLM_COMPRESSOR)
LIBRARIES = ("torch", "safetensors")
QUANTIZATIONS = _vllm_formats.QUANTIZATIONS
WORKERS = ("cast", "quantize_llm_compressor", "calibration")
REQUEST_FIELDS = frozenset(
    {"temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed"}
    | {"max_tokens", "min_tokens", "stop", "stop_token_ids", "ignore_eos", "stream", "stream_options"}
)
"""Any other is taken without a word, a misspelt one too."""
DRAIN_S = 20
"""How long requests in flight may go on after SIGTERM; by default they are cut, and end as complete ones do."""
STOP_GRACE_S = DRAIN_S + 25.0
"""Its processes took up to 11 s to end, and on ROCm they need 15 s to give the memory back."""
MAX_LOGPROBS = 200
"""That a request may ask for; 20 by default."""
KV_CACHE_GIB_ON_CPU = 4
"""Without it, vLLM would take 92 % of the machine's memory."""

supports = _vllm_formats.supports
refuses = _vllm_lora.refuses
export = _vllm_export.export

Rank = Literal[1, 8, 16, 32, 64, 128, 256, 320, 512]


class Options(Model):
    """`engine_args` for vLLM, by its own names."""

    max_model_len: Annotated[int, Field(ge=1)] | Literal["auto"] | None = None
    """Longest sequence, prompt and answer; by default the model's own, and with auto as much of it as the KV cache
    holds."""
    gpu_memory_utilization: float = Field(default=0.92, gt=0, le=1)
    """Share of the GPU's total memory that it may take."""
    kv_cache_memory_bytes: int | None = Field(default=None, ge=2**20)
    """Size of the KV cache, instead of what that share leaves; on a CPU 4 GiB by default."""
    kv_cache_dtype: Literal["auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2"] = "auto"
    """Number format of the cached keys and values; auto is the model's."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number format that it computes in; auto is the export's, or 16 bits where the weights are quantized."""
    max_num_seqs: int | None = Field(default=None, ge=1)
    """Requests in one step; by default vLLM's choice for the GPU."""
    max_num_batched_tokens: int | None = Field(default=None, ge=1)
    """Tokens in one step; by default vLLM's choice for the GPU."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs that share each layer."""
    enforce_eager: bool = False
    """Start without compiling: a minute sooner, and slower from then on."""
    enable_prefix_caching: bool = True
    """Keep what prompts begin with; a benchmark with equal prompts measures this cache."""
    max_lora_rank: Rank | None = None
    """Room for the rank of an adapter; as much as this one needs where that is more."""


def command(launch: Launch, options: Options) -> list[str]:
    """`vllm serve`, of the model or of an adapter's base. Raises InputError for an adapter without its base."""
    given = {
        "host": launch.host,  # its default is every interface
        "port": launch.port,
        "served-model-name": launch.alias,
        "generation-config": "vllm",  # end tokens are kept, sampling defaults are not
        "dtype": _dtype(launch.model, options),
        "shutdown-timeout": DRAIN_S,
        "max-logprobs": MAX_LOGPROBS,
        **_engine_arguments(options),
    }
    served, flags = (
        launch.model,
        ["--enable-scale-out", "--disable-uvicorn-access-log", "--enable-prompt-tokens-details"],
    )
    if _vllm_lora.is_adapter(launch):
        served = launch.base or _adapter_base.find(launch.model)
        flags.append("--enable-lora")
        given |= {
            "served-model-name": _vllm_lora.base_name(launch),
            "generation-config": launch.model,
            "tokenizer": launch.model,
            "max-lora-rank": max(options.max_lora_rank or 1, _vllm_lora.room(launch)),
        }
    arguments = [part for name, value in given.items() if value is not None for part in (f"--{name}", str(value))]
    return [*launch.installed.program("vllm"), "serve", str(served), *arguments, *flags, *_switches(options)]


def _engine_arguments(options: Options) -> dict[str, Any]:
    """Those of vLLM's own that have a value."""
    names = {"max_model_len", "gpu_memory_utilization", "kv_cache_memory_bytes", "kv_cache_dtype", "max_num_seqs"}
    names |= {"max_num_batched_tokens", "tensor_parallel_size"}
    return {name.replace("_", "-"): getattr(options, name) for name in sorted(names)}


def _switches(options: Options) -> list[str]:
    caching = "--enable-prefix-caching" if options.enable_prefix_caching else "--no-enable-prefix-caching"
    return [caching, *(["--enforce-eager"] if options.enforce_eager else [])]


def _dtype(model: Path, options: Options) -> str:
    """vLLM's auto takes float32 for bfloat16, also where float32 was asked for."""
    config = model / "config.json"
    exported = json.loads(config.read_text()).get("dtype") if config.exists() else None
    return "float32" if (options.dtype, exported) == ("auto", "float32") else options.dtype


def files(launch: Launch, options: Options) -> dict[str, str]:
    """None: everything is on the command line."""
    return {}


def options_for(context_tokens: int) -> Options:
    """As long as the model allows and the cache holds; uncompiled, as a minute of compiling serves few requests."""
    return Options(max_model_len="auto", enforce_eager=True)


def planned(options: Options) -> dict[str, Any]:
    """By the names of the planner."""
    longest = options.max_model_len
    return {
        "max_model_len": None if longest == "auto" else longest,
        "max_num_seqs": options.max_num_seqs,
        "max_num_batched_tokens": options.max_num_batched_tokens,
        "gpu_memory_utilization": options.gpu_memory_utilization,
        "kv_dtype": options.kv_cache_dtype,
        "tensor": options.tensor_parallel_size,
        "cuda_graphs": not options.enforce_eager,
    }


def environment(launch: Launch, options: Options) -> dict[str, str]:
    """Nothing is fetched or reported, and the processes talk over loopback.

    The variables of the CPU count on no other machine. Threads that are bound share one core with those of the next
    engine, and threads that spin while they wait take it away from everybody.
    """
    found = {
        "VLLM_HOST_IP": launch.host,
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": _given("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
        "OMP_WAIT_POLICY": _given("OMP_WAIT_POLICY", "passive"),
    }
    if options.kv_cache_memory_bytes is None:
        found["VLLM_CPU_KVCACHE_SPACE"] = _given("VLLM_CPU_KVCACHE_SPACE", str(KV_CACHE_GIB_ON_CPU))
    if _vllm_lora.is_adapter(launch):
        found["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    return found


def _given(name: str, default: str) -> str:
    return os.environ.get(name, default)


def diagnose(log: str) -> str | None:
    """The KV cache, memory, formats, kernels, adapters, the port, an engine process that died."""
    return cause(log, _vllm_log.CAUSES)


def parse_metrics(text: str) -> scrape.EngineMetrics:
    """From the server's Prometheus text."""
    return scrape.parse(text)


def models(launch: Launch) -> list[str]:
    """The base's name, and those of the adapters that are loaded."""
    return client.models(launch.url)


def attach(launch: Launch) -> None:
    """Load an adapter. Raises EngineError when vLLM refuses it, or when the server has read another model."""
    if _vllm_lora.is_adapter(launch):
        _vllm_lora.load(launch)
    listed = client.call(f"{launch.url}/models")["data"]
    read = next((entry["root"] for entry in listed if entry["id"] == launch.alias), None)
    if read != str(launch.model):
        raise EngineError(f"the server at {launch.url} has read {read} as {launch.alias}, not {launch.model}")


def request_fields(launch: Launch) -> dict[str, Any]:
    """None."""
    return {}


def served_name(launch: Launch) -> str:
    """The alias, of the model or of the adapter."""
    return launch.alias


def chat_template(launch: Launch) -> str | None:
    """Not told: what it makes of a chat is (`prompt_tokens`)."""
    return None


def prompt_tokens(launch: Launch, messages: Sequence[Message]) -> list[int]:
    """/tokenize of a chat, with the server's own template."""
    body = {"model": launch.alias, "messages": list(messages), "add_generation_prompt": True}
    return list(client.call(f"{client.root(launch.url)}/tokenize", body)["tokens"])


def next_token_logprobs(launch: Launch, tokens: Sequence[int], top: int) -> dict[int, float]:
    """By the endpoint that takes and gives token ids, before temperature and bias.

    /v1/completions would write each of them as text, and ends the whole server over an id that the tokenizer does not
    have, as there are where the embedding is padded (with a SentencePiece tokenizer).
    """
    sampling = {"max_tokens": 1, "temperature": 0, "logprobs": top, "detokenize": False}
    body = {"model": launch.alias, "token_ids": list(tokens), "sampling_params": sampling}
    reply = client.call(f"{client.root(launch.url)}/inference/v1/generate", body)
    found = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    return {entry["token_id"]: entry["logprob"] for entry in found}
