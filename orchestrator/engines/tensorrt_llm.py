"""TensorRT-LLM, PyTorch backend: ModelOpt's checkpoints and LoRA adapters, served by `trtllm-serve`.

Options go into a YAML file (`_trtllm_options` says why). The server has no name for a model but its folder's, no
endpoint for tokens and none for adapters: a request names the adapter's folder. It refuses fields it does not know.

What of this could not be run for want of an NVIDIA GPU is written from the sources of 1.2 and tested against a fake.
"""

import http
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.catalog.gpus import Gpu
from orchestrator.engines import _chat_tokens, _trtllm_lora, client
from orchestrator.engines._causes import Causes, cause
from orchestrator.engines._trtllm_export import CALIBRATED, MODEL_OPT, export
from orchestrator.engines._trtllm_options import Options, as_yaml, file_name, planned
from orchestrator.engines.base import LORA, Launch, Message, Support
from orchestrator.environments.environment import Environment, Pip
from orchestrator.errors import EngineError
from orchestrator.loadgen import scrape
from orchestrator.planner.serving.servable import refusal
from orchestrator.planner.serving.serving import Serving
from orchestrator.plugins import nearest

__all__ = ["Options", "export", "planned"]

LIBRARIES: tuple[str, ...] = ()
WORKERS = ("cast", "quantize_modelopt", "calibration")
STOP_GRACE_S = 30.0
"""uvicorn waits for requests in flight without a limit of its own, then the executor's processes end."""
REQUEST_FIELDS = frozenset(
    {"temperature", "top_p", "top_k", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty"}
    | {"max_tokens", "min_tokens", "stop", "stop_token_ids", "ignore_eos", "seed", "stream", "stream_options"}
    | {"logprobs", "top_logprobs", "lora_request"}
)
"""Any other is refused with status 400."""
QUANTIZATIONS = ("BF16", *CALIBRATED, LORA)
_NO_GPU = "no NVIDIA GPU"
TENSORRT_LLM = Environment(
    name="tensorrt_llm",
    version="1.2.1",
    purpose="serves on NVIDIA GPUs",
    program="trtllm-serve",
    check="tensorrt_llm",
    kinds={
        # the wheels lie on NVIDIA's own index, where the source archive of the package index leads pip
        "cuda": Pip(
            requirements=("tensorrt-llm=={version}",),
            first=("torch==2.9.1",),
            pythons=("3.12", "3.10"),
            size_bytes=30 * 10**9,
        )
    },
    images={"cuda": "nvcr.io/nvidia/tensorrt-llm/release:{version}"},
    refusals={"cpu": _NO_GPU, "rocm": _NO_GPU},
)
ENVIRONMENTS = (TENSORRT_LLM, MODEL_OPT)
refuses = _trtllm_lora.refuses
_MOST_LOGPROBS = 5
"""That OpenAI's own API allows; newer versions bound theirs."""
_CAUSES: Causes = (
    (r"No GPU devices found", "{0}: no NVIDIA GPU is visible to it"),
    (
        r"validation errors? for \w*LlmArgs\n(?P<said>\S+)\n\s+Extra inputs are not permitted",
        "{said}: this version does not know the option",
    ),
    (r"Failed to bind socket to (?P<said>\S+): .*", "{said}: another process has its port"),
    (
        r"The following component could not be created: (?P<said>.*)",
        "{said}: no GPU memory is left for it: lower max_num_tokens, max_batch_size or"
        " kv_cache_config.free_gpu_memory_fraction, or take more GPUs",
    ),
    (r"(?P<said>CUDA out of memory\..*)", "{said}: lower max_num_tokens or max_batch_size, or take more GPUs"),
    (
        r"(?P<said>\w*Error: (?=.*(?i:quant|fp8|nvfp4|awq))(?=.*(?i:support|valid)).*)",
        "{said}: it does not serve this weight format on this GPU: `orch engines matrix` says which it does",
    ),
)


def supports(quantization: str, gpu: Gpu | None) -> Support:
    """By the support matrix of 1.2; an adapter as the 16-bit base that it is served on."""
    if quantization not in QUANTIZATIONS:
        known = nearest(quantization.upper(), list(QUANTIZATIONS))
        return Support(ok=False, reason=f"tensorrt_llm does not serve quantization {quantization!r}; {known}")
    if gpu is None or gpu.vendor != "nvidia":
        return Support(ok=False, reason=_NO_GPU)
    word = "bf16" if quantization == LORA else quantization.lower()
    reason = refusal(Serving(engine="tensorrt_llm", quantization=word), gpu)
    return Support(ok=reason is None, reason=reason or "")


def command(launch: Launch, options: Options) -> list[str]:
    """The command line: what may not stand in the YAML file, and its path under the name that 1.2.1 knows."""
    given = {
        "host": launch.host,
        "port": launch.port,
        "backend": "pytorch",
        "extra_llm_api_options": launch.directory / file_name(launch.alias),
    }
    flags = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    return [*launch.installed.program("trtllm-serve"), "serve", str(launch.model), *flags]


def files(launch: Launch, options: Options) -> dict[str, str]:
    """The YAML file; with `lora_config` where there is, or will be, an adapter in the model's folder."""
    adapter = _trtllm_lora.of(launch)
    more = {"lora_config": _trtllm_lora.config(adapter)} if adapter else {}
    return {file_name(launch.alias): as_yaml(options, **more)}


def options_for(context_tokens: int) -> Options:
    """Few requests of that length."""
    return Options(max_seq_len=context_tokens, max_num_tokens=max(context_tokens, 8192), max_batch_size=8)


def environment(launch: Launch, options: Options) -> dict[str, str]:
    """Nothing is fetched: the model is a folder."""
    return {"HF_HUB_OFFLINE": "1"}


def diagnose(log: str) -> str | None:
    """No GPU, an option of another version, the port, memory, a weight format."""
    return cause(log, _CAUSES)


def parse_metrics(text: str) -> scrape.EngineMetrics:
    """From /metrics, JSON that is emptied by reading it, or from /prometheus/metrics, with or without a prefix."""
    return scrape.parse(text)


def models(launch: Launch) -> list[str]:
    """From /v1/models."""
    return client.models(launch.url)


def attach(launch: Launch) -> None:
    """Nothing: each request names its adapter."""


def request_fields(launch: Launch) -> dict[str, Any]:
    """The adapter, where the export has one; its number must be the same in every request, and no other's."""
    adapter = launch.model / _trtllm_lora.FOLDER
    if not adapter.is_dir():
        return {}
    number = zlib.crc32(launch.alias.encode())
    return {"lora_request": {"lora_name": launch.alias, "lora_int_id": number, "lora_path": str(adapter)}}


def served_name(launch: Launch) -> str:
    """The name of the model's folder: 1.2.1 takes no other. It is not checked in a request, so `models` tells."""
    return launch.model.name


def chat_template(launch: Launch) -> str | None:
    """The one in the model's folder."""
    return _chat_tokens.template(launch.model)


def prompt_tokens(launch: Launch, messages: Sequence[Message]) -> list[int] | None:
    """By the files in the model's folder: there is no endpoint that tells."""
    return _chat_tokens.prompt_ids(launch.model, messages)


def next_token_logprobs(launch: Launch, tokens: Sequence[int], top: int) -> dict[int, float]:
    """By `logprobs` of a completion, which names tokens by their text; up to the first text that is no single token's.

    So the list is what it seems: the likeliest ones, without a gap.
    """
    known = _chat_tokens.ids_of_texts(launch.model)
    ranked = sorted(_told(launch, tokens, top).items(), key=lambda entry: -entry[1])
    found: dict[int, float] = {}
    for text, logprob in ranked:
        if text not in known:
            break
        found[known[text]] = logprob
    return found


def _told(launch: Launch, tokens: Sequence[int], top: int) -> Mapping[str, float]:
    """Texts of the likeliest next tokens -> log-probability; fewer where the server does not tell that many."""
    body = {"model": served_name(launch), "prompt": list(tokens), "max_tokens": 1, "temperature": 0}
    body |= request_fields(launch)
    try:
        reply = client.call(f"{launch.url}/completions", body | {"logprobs": top})
    except EngineError as error:
        refused = (
            isinstance(error.__cause__, client.StatusError) and error.__cause__.status == http.HTTPStatus.BAD_REQUEST
        )
        if not refused or top <= _MOST_LOGPROBS:
            raise
        reply = client.call(f"{launch.url}/completions", body | {"logprobs": _MOST_LOGPROBS})
    told: Mapping[str, float] = reply["choices"][0]["logprobs"]["top_logprobs"][0]
    return told
