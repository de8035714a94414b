"""A fake of TensorRT-LLM 1.2.1's `trtllm-serve serve`: what it documents of its behaviour, and no model.

    python -m tests.engines.fake_trtllm serve MODEL --host H --port P --backend pytorch --extra_llm_api_options FILE
    command = install(folder)      # a program `trtllm-serve` in a folder, to be put on PATH

Written from the sources of TensorRT-LLM near 1.2 (commands/serve.py, serve/openai_server.py, openai_protocol.py,
lora_helper.py) and its `trtllm-serve` page: the port is bound before the model is loaded and refuses until then; the
YAML file's options are checked, and one that LlmArgs does not know ends it; the model's name is that of its folder and
no request's `model` is looked at; fields that the schema does not know are refused with status 400; /metrics is a JSON
list that reading empties; /prometheus/metrics is there with `return_perf_metrics` only; there is no /tokenize; SIGTERM
waits for the requests in flight without a limit.

What it answers is made up: ANSWER, and ADAPTED where the request names an adapter. For a prompt that contains HANG it
makes a file MODEL/asked, and answers once there is a file MODEL/released. FAKE_GPUS=0 is a machine without a GPU.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jinja2
import yaml
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from tokenizers import Tokenizer

VERSION = "1.2.1"
ANSWER, ADAPTED = "Licence: MIT", "Licence: BSD-3-Clause"
# fmt: off
LLM_ARGS = {
    "tensor_parallel_size", "pipeline_parallel_size", "moe_expert_parallel_size", "max_batch_size", "max_num_tokens",
    "max_seq_len", "kv_cache_config", "cuda_graph_config", "enable_chunked_prefill", "disable_overlap_scheduler",
    "attn_backend", "stream_interval", "num_postprocess_workers", "enable_iter_perf_stats", "return_perf_metrics",
    "lora_config", "backend",
}
# fmt: on
_LORA_CONFIG = {"lora_target_modules", "max_lora_rank", "max_loras", "max_cpu_loras", "lora_dir"}


class Schema(BaseModel):
    model_config = ConfigDict(extra="forbid")


class StreamOptions(Schema):
    include_usage: bool = True


class LoraRequest(Schema):
    lora_name: str
    lora_int_id: int
    lora_path: str


class Request(Schema):
    """The fields that chats and completions share."""

    model: str
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int = 0
    min_p: float = 0
    repetition_penalty: float = 1
    frequency_penalty: float = 0
    presence_penalty: float = 0
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    min_tokens: int = 0
    stream: bool = False
    stream_options: StreamOptions | None = None
    lora_request: LoraRequest | None = None

    @model_validator(mode="before")
    @classmethod
    def _streamed(cls, data: dict[str, Any]) -> dict[str, Any]:
        if data.get("stream_options") and not data.get("stream"):
            raise ValueError("Stream options can only be defined when stream is true.")
        return data


class Chat(Request):
    messages: list[dict[str, Any]]
    logprobs: bool = False
    top_logprobs: int = 0


class Completion(Request):
    prompt: str | list[int]
    logprobs: int | None = Field(default=None, le=20)


class Server:
    """One model's server."""

    def __init__(self, model: Path, llm_args: dict[str, Any]) -> None:
        self.model, self.args = model, llm_args
        self.tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        self.template = (model / "chat_template.jinja").read_text()
        self.end: str = json.loads((model / "tokenizer_config.json").read_text())["eos_token"]
        self.steps: list[dict[str, Any]] = []
        self.step, self.requests = 0, 0
        self.adapters: dict[int, str] = {}

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/health", self.health)
        app.router.add_get("/health_generate", self.health)
        app.router.add_get("/version", self.version)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/v1/completions", self.completion)
        if self.args.get("return_perf_metrics"):
            app.router.add_get("/prometheus/metrics", self.prometheus)
        return app

    async def health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": VERSION})

    async def models(self, _: web.Request) -> web.Response:
        card = {"id": self.model.name, "object": "model", "created": 0, "owned_by": "tensorrt_llm"}
        return web.json_response({"object": "list", "data": [card]})

    async def metrics(self, _: web.Request) -> web.Response:
        drained, self.steps = self.steps, []
        return web.json_response(drained)

    async def prometheus(self, _: web.Request) -> web.Response:
        labels = '{engine_type="undefined",finished_reason="stop",model_name="undefined"}'
        return web.Response(text=f"request_success_total{labels} {self.requests}\n")

    async def chat(self, http: web.Request) -> web.StreamResponse:
        try:
            request = Chat.model_validate(await http.json())
            text = jinja2.Template(self.template).render(messages=request.messages, add_generation_prompt=True)
            return await self.answer(http, request, self.tokenizer.encode(text, add_special_tokens=False).ids)
        except ValidationError as error:
            return web.json_response({"error": str(error)}, status=400)
        except ValueError as error:
            return refused(str(error))

    async def completion(self, http: web.Request) -> web.StreamResponse:
        try:
            request = Completion.model_validate(await http.json())
            prompt = request.prompt
            return await self.answer(
                http, request, self.tokenizer.encode(prompt).ids if isinstance(prompt, str) else prompt
            )
        except ValidationError as error:
            return web.json_response({"error": str(error)}, status=400)
        except ValueError as error:
            return refused(str(error))

    async def answer(self, http: web.Request, request: Chat | Completion, prompt: list[int]) -> web.StreamResponse:
        """Raises ValueError for a request that the engine refuses."""
        longest = self.args.get("max_seq_len") or 1 << 20
        wanted = request.max_tokens or longest - len(prompt)
        if len(prompt) + wanted > longest:
            sums = f"The sum of prompt length ({len(prompt)}) and query length (0) max_tokens ({wanted})"
            raise ValueError(f"{sums} should not exceed max_seq_len ({longest})")
        tokens, reason = self.generated(request, wanted)
        if "HANG" in self.tokenizer.decode(prompt):
            (self.model / "asked").touch()
            while not (self.model / "released").exists():
                await asyncio.sleep(0.01)
        self.count(len(tokens))
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(tokens)}
        usage["total_tokens"] = sum(usage.values())
        if request.stream:
            return await self.stream(http, request, tokens, reason, usage)
        return web.json_response(self.whole(request, tokens, reason, usage))

    def generated(self, request: Request, most: int) -> tuple[list[int], str]:
        """Tokens, and `stop` or `length`."""
        text = ANSWER if request.lora_request is None else self.adapted(request.lora_request)
        written = self.tokenizer.encode(text, add_special_tokens=False).ids
        if request.ignore_eos:
            return [written[place % len(written)] for place in range(most)], "length"
        ended = [*written, self.tokenizer.token_to_id(self.end)]
        return (ended, "stop") if len(ended) <= most else (ended[:most], "length")

    def adapted(self, asked: LoraRequest) -> str:
        """Raises ValueError for an adapter that cannot be applied."""
        if "lora_config" not in self.args:
            raise ValueError("LoRA is not enabled: there is no lora_config")
        settings = Path(asked.lora_path) / "adapter_config.json"
        if not settings.is_file():
            raise ValueError(f"{settings} does not exist")
        if self.adapters.setdefault(asked.lora_int_id, asked.lora_path) != asked.lora_path:
            raise ValueError(f"lora_int_id {asked.lora_int_id} belongs to another adapter")
        rank, most = json.loads(settings.read_text())["r"], self.args["lora_config"].get("max_lora_rank", 64)
        if rank > most:
            raise ValueError(f"LoRA rank {rank} is greater than max_lora_rank {most}")
        return ADAPTED

    def count(self, steps: int) -> None:
        self.requests += 1
        for _ in range(steps if self.args.get("enable_iter_perf_stats") else 0):
            self.step += 1
            cache = {"maxNumBlocks": 1000, "usedNumBlocks": 10, "freeNumBlocks": 990, "tokensPerBlock": 32}
            stats = {"iter": self.step, "iterLatencyMS": 7.0, "kvCacheStats": cache, "numActiveRequests": 1}
            self.steps.append(stats | {"inflightBatchingStats": {"numScheduledRequests": 1}})

    def whole(self, request: Chat | Completion, tokens: list[int], reason: str, usage: dict[str, int]) -> Any:
        text, choice = self.tokenizer.decode(tokens), {"index": 0, "finish_reason": reason, "stop_reason": None}
        if isinstance(request, Chat):
            choice |= {"message": {"role": "assistant", "content": text}}
            return {"object": "chat.completion", "model": request.model, "choices": [choice], "usage": usage}
        if request.logprobs:
            choice |= {"logprobs": {"top_logprobs": [self.likeliest(tokens[0], request.logprobs)]}}
        return {
            "object": "text_completion",
            "model": request.model,
            "choices": [choice | {"text": text}],
            "usage": usage,
        }

    def likeliest(self, first: int, count: int) -> dict[str, float]:
        """By the tokens' texts, as the server tells them: the one that it writes, and the next ones by number."""
        ids = [(first + place) % self.tokenizer.get_vocab_size() for place in range(count)]
        return {
            self.tokenizer.decode([token], skip_special_tokens=False): -0.1 - place for place, token in enumerate(ids)
        }

    async def stream(
        self, http: web.Request, request: Chat | Completion, tokens: list[int], reason: str, usage: dict[str, int]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(http)
        async for event in self.events(request, tokens, reason, usage):
            await response.write(event.encode())
        return response

    async def events(
        self, request: Chat | Completion, tokens: list[int], reason: str, usage: dict[str, int]
    ) -> AsyncIterator[str]:
        chats = isinstance(request, Chat)
        common = {"id": "1", "object": "chat.completion.chunk" if chats else "text_completion", "model": request.model}
        if chats:  # with a space before the empty line, as the server has it
            yield f"data: {json.dumps(common | {'choices': [{'index': 0, 'delta': {'role': 'assistant'}}]})} \n\n"
        for place, token in enumerate(tokens):
            text = self.tokenizer.decode([token])
            said: dict[str, Any] = {"delta": {"content": text}} if chats else {"text": text}
            ended = {"finish_reason": reason} if place == len(tokens) - 1 else {}
            yield f"data: {json.dumps(common | {'choices': [{'index': 0, **said, **ended}]})}\n\n"
            await asyncio.sleep(0)
        if request.stream_options and request.stream_options.include_usage:
            yield f"data: {json.dumps(common | {'choices': [], 'usage': usage})}\n\n"
        yield "data: [DONE]\n\n"


def refused(message: str) -> web.Response:
    """As `create_error_response` makes it."""
    error = {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": 400}
    return web.json_response(error, status=400)


def check(llm_args: dict[str, Any]) -> None:
    """Ends the program as pydantic's error for an option that is not known would."""
    unknown = [name for name in llm_args if name not in LLM_ARGS]
    unknown += [f"lora_config.{name}" for name in llm_args.get("lora_config", {}) if name not in _LORA_CONFIG]
    if unknown:
        said = "".join(f"{name}\n  Extra inputs are not permitted [type=extra_forbidden]\n" for name in unknown)
        sys.exit(
            f"pydantic_core._pydantic_core.ValidationError: {len(unknown)} validation error for TorchLlmArgs\n{said}"
        )


async def serve(server: Server, listener: socket.socket) -> None:
    """Until SIGTERM, and then until the requests in flight have been answered."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    runner = web.AppRunner(server.app(), shutdown_timeout=1e9, handler_cancellation=True)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    print(f"INFO:     Uvicorn running on http://{listener.getsockname()}", flush=True)
    await stopping.wait()
    print("INFO:     Waiting for connections to close.", flush=True)
    await runner.cleanup()


def main() -> None:
    print(f"[TensorRT-LLM] TensorRT LLM version: {VERSION} (a fake)", flush=True)
    parser = argparse.ArgumentParser(prog="trtllm-serve", allow_abbrev=False)
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model", type=Path)
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--backend", choices=["pytorch", "tensorrt", "_autodeploy"], default="pytorch")
    parser.add_argument("--config", "--extra_llm_api_options", dest="extra", type=Path)
    given = parser.parse_args()
    if os.environ.get("FAKE_GPUS") == "0":
        raise ValueError("No GPU devices found on the node")
    llm_args = yaml.safe_load(given.extra.read_text()) if given.extra else {}
    check(llm_args)
    with socket.socket() as listener:
        try:
            listener.bind((given.host, given.port))
        except OSError as error:
            raise RuntimeError(f"Failed to bind socket to {given.host}:{given.port}: {error}") from error
        asyncio.run(serve(Server(given.model, llm_args), listener))


def install(folder: Path) -> Path:
    """A program `trtllm-serve` in the folder that is this fake."""
    program = folder / "trtllm-serve"
    root = Path(__file__).parents[2]
    program.write_text(f'#!/bin/sh\nPYTHONPATH={root} exec {sys.executable} -m tests.engines.fake_trtllm "$@"\n')
    program.chmod(0o755)
    return program


if __name__ == "__main__":
    main()
