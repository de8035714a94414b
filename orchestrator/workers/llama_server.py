"""llama.cpp's server from the prebuilt `xllamacpp` wheel, with the option names of the `llama-server` program.

    .../bin/python -P llama_server.py --model m.gguf --port 8080 --alias name

It is run as a file, by the Python of an environment that holds the wheel and nothing of orch's.

Ends with 1 when the server does not start (a broken model, a port in use); its log says why. SIGTERM ends it at once:
whoever stops an engine has let its requests finish before.
"""

import argparse
import signal
import sys
from typing import Any

import xllamacpp

FLASH_ATTENTION = {
    "auto": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


def arguments() -> argparse.Namespace:
    """The options that the engine's plug-in sends, under llama-server's names."""
    parser = argparse.ArgumentParser(prog="llama_server", description="llama.cpp's server out of a Python wheel.")
    parser.add_argument("--model", required=True)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ctx-size", type=int, default=0)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--ubatch-size", type=int, default=512)
    parser.add_argument("--n-gpu-layers", default="all", help="a number, or all")
    parser.add_argument("--flash-attn", choices=sorted(FLASH_ATTENTION), default="auto")
    parser.add_argument("--cache-type-k", default="f16")
    parser.add_argument("--cache-type-v", default="f16")
    parser.add_argument("--sse-ping-interval", type=int, default=30)
    parser.add_argument("--fit", choices=["on", "off"], default="on")
    parser.add_argument("--lora", help="an adapter in a GGUF file")
    parser.add_argument("--check-tensors", action="store_true")
    parser.add_argument("--metrics", action="store_true")
    parser.add_argument("--jinja", action="store_true")
    return parser.parse_args()


def parameters(given: argparse.Namespace) -> Any:
    """The same options as the wheel's parameter object."""
    found = xllamacpp.CommonParams()
    found.model.path = given.model
    found.model_alias = {given.alias}
    found.hostnames = [given.host]
    found.port = given.port
    found.n_ctx = given.ctx_size
    found.n_parallel = given.parallel
    if given.threads:
        found.cpuparams.n_threads = given.threads
        found.cpuparams_batch.n_threads = given.threads
    found.n_batch, found.n_ubatch = given.batch_size, given.ubatch_size
    found.n_gpu_layers = -1 if given.n_gpu_layers == "all" else int(given.n_gpu_layers)
    found.flash_attn_type = FLASH_ATTENTION[given.flash_attn]
    found.cache_type_k, found.cache_type_v = cache_type(given.cache_type_k), cache_type(given.cache_type_v)
    found.sse_ping_interval = given.sse_ping_interval
    found.fit_params = given.fit == "on"
    found.check_tensors = given.check_tensors
    found.endpoint_metrics = given.metrics
    found.use_jinja = given.jinja
    if given.lora:
        found.lora_adapters = [adapter(given.lora)]
    return found


def adapter(path: str) -> Any:
    """One adapter with its full effect."""
    found = xllamacpp.CommonAdapterLoraInfo()
    found.path, found.scale = path, 1.0
    return found


def cache_type(name: str) -> Any:
    """`q8_0` -> ggml's type of that name."""
    return getattr(xllamacpp.ggml_type, f"GGML_TYPE_{name.upper()}")


def main() -> None:
    given = arguments()
    try:
        server = xllamacpp.Server(parameters(given))
    except RuntimeError as error:
        print(f"llama_server: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"llama_server: serving {given.alias} at {server.listening_address}", file=sys.stderr, flush=True)
    while True:
        signal.pause()  # SIGTERM keeps its default action: the server's own shutdown would wait for open streams


if __name__ == "__main__":
    main()
