"""What vLLM's logs say: excerpts of real ones (0.32, CPU), and its own messages where a GPU or an old CPU is needed."""

import pytest

from orchestrator.engines import vllm

KV = (
    "(EngineCore pid=8710) ERROR 11-24 15:33:05 [core.py:1510] ValueError: To serve at least one request with the"
    " model's max seq len (8192), (1.0 GiB KV cache is needed, which is larger than the available KV cache memory"
    " (0.25 GiB). {}Try increasing `gpu_memory_utilization` (which also controls CPU memory on the CPU backend) or"
    " decreasing `max_model_len` when initializing the engine."
)
ENDS = """
(APIServer pid=22316) Traceback (most recent call last):
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}
"""


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        (
            KV.format("Based on the available memory, the estimated maximum model length is 1920. "),
            "max_model_len to 1920",
        ),
        (KV.format(""), "KV cache of 0.25 GiB does not hold one request of 8192 tokens, which needs 1.0 GiB"),
        (
            "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when"
            " initializing the engine (this flag also controls CPU memory reservation on the CPU backend, despite its"
            " name).",
            "no memory is left for its KV cache: raise gpu_memory_utilization or kv_cache_memory_bytes",
        ),
        (
            "(Worker pid=12521) ERROR 11-24 15:37:15 [multiproc_executor.py:1063] ValueError: Available memory on node"
            " 0 (19.08/23.54 GiB) on kv cache allocation is less than requested memory for kv (64.0 GiB). Decrease"
            " --kv-cache-memory-bytes, VLLM_CPU_KVCACHE_SPACE, or reduce CPU memory used by other processes.",
            "19.08 GiB of memory are available, and its KV cache wants 64.0: lower kv_cache_memory_bytes",
        ),
        (
            "ValueError: Free memory on device cuda:0 (20.31/79.11 GiB) on startup is less than desired GPU memory"
            " utilization (0.92, 72.78 GiB). Decrease GPU memory utilization or reduce GPU memory used by other"
            " processes.",
            "of 79.11 GiB only 20.31 are free, and gpu_memory_utilization 0.92 wants 72.78: lower it",
        ),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of",
            "the GPU's memory is full: lower gpu_memory_utilization",
        ),
        (
            "  Value error, User-specified max_model_len (512) is greater than the derived max_model_len"
            " (max_position_embeddings=256.0 or model_max_length=None in model's config.json). To allow overriding this"
            " maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1.",
            "max_model_len 512 is more than the 256 tokens that the model was made for",
        ),
        (
            "  Value error, Quantization method specified in the model config (compressed-tensors) does not match the"
            " quantization method specified in the `quantization` argument (awq). [type=value_error]",
            "the checkpoint is quantized with compressed-tensors",
        ),
        (
            "  Value error, Unknown quantization method: bitsandbytes. Must be one of ['awq', 'auto_awq', 'fp8'].",
            "bitsandbytes checkpoints only with a plugin: export the merged model",
        ),
        (
            "ValueError: Failed to find a kernel that can implement the NVFP4 linear layer. Reasons: \nCutlassNvFp4",
            "NVFP4 has no kernel on this machine",
        ),
        (
            "AttributeError: '_OpNamespace' '_C' object has no attribute 'cpu_gemm_wna16'\nvllm.v1.engine.exceptions."
            "EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.",
            "this CPU has no AVX-512, which 4-bit weights need",
        ),
        (
            "RuntimeError: Int8 not supported on SM100. Use FP8 quantization instead, or run on older arch (SM < 100).",
            "INT8 has no kernel on this GPU: use quantization FP8",
        ),
        (
            '[async_llm.py:906]     _restore_leading_spaces(raw, tokenizer.decode([tid]) or "", marker)\n'
            '[async_llm.py:906]   File "detokenizer_utils.py", line 108, in _restore_leading_spaces\n'
            "[async_llm.py:906]     for ch in raw_token:\n"
            "[async_llm.py:906] TypeError: 'NoneType' object is not iterable",
            "ended over a request for log-probabilities",
        ),
        ("OSError: [Errno 98] Address already in use", "its port is in use"),
        (
            "[repo_utils.py:124] Error parsing config for models/arch: The checkpoint you are trying to load has model"
            " type `nosuch` but Transformers does not recognize this architecture.",
            "does not know models of type nosuch",
        ),
        (
            "ValueError: Model architectures ['NoSuchForCausalLM'] are not supported for now. Supported architectures:",
            "does not serve the architecture NoSuchForCausalLM",
        ),
        (
            "ValueError: Couldn't instantiate the backend tokenizer from one of: \n",
            "the folder has no tokenizer",
        ),
        (
            "  Value error, Invalid repository ID or local directory specified: 'models/empty'.\nPlease verify:",
            "there is no model in models/empty",
        ),
        (
            "safetensors._safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata, file"
            " not fully covered",
            "a file of its weights is cut or damaged (Error while deserializing header: incomplete metadata, file not",
        ),
        (
            "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for"
            " the root cause.",
            "its engine process is dead",
        ),
    ],
)
def test_the_cause_in_a_log_is_said_with_what_would_do(log, cause):
    assert cause in (vllm.diagnose(f"INFO 11-24 Starting to load model\n{log}{ENDS}") or "")


def test_a_server_that_works_has_no_cause():
    log = "(APIServer pid=25592) WARNING 11-24 15:11:11 [system_utils.py:255] Found ulimit of 20000 and failed to"
    log += " automatically increase. This can cause fd limit errors like `OSError: [Errno 24] Too many open files`."
    assert vllm.diagnose(log) is None
