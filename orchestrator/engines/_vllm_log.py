"""What vLLM 0.32 says when it cannot go on, and what would do.

Its last lines are the stacks of three processes, each of which says that another one failed: the cause stands before.
"""

from orchestrator.engines._causes import Causes

CAUSES: Causes = (
    (
        r"the estimated maximum model length is (\d+)",
        "its KV cache does not hold one request of the model's length: set max_model_len to {1} or less, or raise"
        " gpu_memory_utilization or kv_cache_memory_bytes",
    ),
    (
        r"max seq len \((\d+)\), \(([\d.]+) GiB KV cache is needed, .* \(([\d.]+) GiB\)",
        "its KV cache of {3} GiB does not hold one request of {1} tokens, which needs {2} GiB: lower max_model_len, or"
        " raise gpu_memory_utilization or kv_cache_memory_bytes",
    ),
    (
        r"No available memory for the cache blocks",
        "no memory is left for its KV cache: raise gpu_memory_utilization or kv_cache_memory_bytes, lower"
        " max_num_batched_tokens, or choose a narrower quantization",
    ),
    (
        r"Free memory on device \S*\s*\(([\d.]+)/([\d.]+) GiB\) on startup is less than desired GPU memory utilization"
        r" \(([\d.]+), ([\d.]+) GiB\)",
        "of {2} GiB only {1} are free, and gpu_memory_utilization {3} wants {4}: lower it, or end what holds the memory"
        " (an engine that has just ended takes some seconds to give it back)",
    ),
    (
        r"Available memory on node \d+ \(([\d.]+)/[\d.]+ GiB\) on kv cache allocation is less than requested memory"
        r" for kv \(([\d.]+)",
        "{1} GiB of memory are available, and its KV cache wants {2}: lower kv_cache_memory_bytes",
    ),
    (
        r"OutOfMemoryError: (?:CUDA|HIP) out of memory|out of memory occurred when warming up",
        "the GPU's memory is full: lower gpu_memory_utilization, max_num_seqs or max_num_batched_tokens",
    ),
    (
        r"User-specified max_model_len \((\d+)\) is greater than the derived max_model_len \(\S+?=(\d+)",
        "max_model_len {1} is more than the {2} tokens that the model was made for: lower it",
    ),
    (
        r"Quantization method specified in the model config \((\S+)\) does not match the quantization method specified",
        "the checkpoint is quantized with {1}: it must be served as it is; export it again",
    ),
    (
        r"Unknown quantization method: bitsandbytes",
        "vLLM reads bitsandbytes checkpoints only with a plugin: export the merged model, such as quantization FP8",
    ),
    (
        r"Unknown quantization method: (\S+?)\.",
        "this vLLM does not read {1} checkpoints: export the model in another quantization",
    ),
    (
        r"_C\S* object has no attribute 'cpu_gemm_wna16'",
        "this CPU has no AVX-512, which 4-bit weights need: use quantization FP8 or INT8",
    ),
    (
        r"Int8 not supported on SM1",
        "INT8 has no kernel on this GPU: use quantization FP8",
    ),
    (
        r"_restore_leading_spaces[\s\S]*?'NoneType' object is not iterable",
        "it ended over a request for log-probabilities: among the likeliest was an id that the tokenizer does not have;"
        " ask for fewer top_logprobs",
    ),
    (
        r"(?:Address already in use|address already in use).*|\[Errno 98\]",
        "its port is in use: choose another one, or end what listens there",
    ),
    (
        r"model type `(\S+)` but Transformers does not recognize",
        "this vLLM does not know models of type {1}: use another engine, or a newer vLLM",
    ),
    (
        r"Model architectures \['(\S+)'\] are not supported",
        "this vLLM does not serve the architecture {1}: use another engine",
    ),
    (
        r"Couldn't instantiate the backend tokenizer|Can't load tokenizer for",
        "the folder has no tokenizer: export the model again",
    ),
    (
        r"Invalid repository ID or local directory specified: '(\S+)'",
        "there is no model in {1}: export it again",
    ),
    (
        r"SafetensorError: (.+)",
        "a file of its weights is cut or damaged ({1}): export the model again",
    ),
    (
        r"Failed to find a kernel that can implement the (\S+) linear layer",
        "{1} has no kernel on this machine: use another quantization",
    ),
    (r"EngineDeadError", "its engine process is dead; the cause stands above that in its log"),
)
