"""What llama.cpp's server says when it cannot go on, and what would do.

The words are those of commit 0c1e570; the messages of its CPU build were produced, those of CUDA and HIP read in
ggml-cuda.cu.
"""

from orchestrator.engines._causes import Causes

CAUSES: Causes = (
    (
        r"couldn't bind HTTP server socket, hostname: (\S+), port: (\d+)",
        "port {2} of {1} is in use; choose another one",
    ),
    (
        r"(?:cudaMalloc|hipMalloc) failed: out of memory|failed to allocate (?:\S+ )?buffer|failed to allocate compute"
        r"|unable to allocate \S+ buffer|std::bad_alloc",
        "it is out of memory; lower n_ctx or parallel, set cache_type_k and cache_type_v to q8_0, or choose a narrower"
        " quantization",
    ),
    (
        r"unknown model architecture: '([^']*)'",
        "this llama.cpp does not know the architecture {1!r}; install a newer one, or use another engine",
    ),
    (
        r"invalid magic characters|failed to read magic",
        "the file is not GGUF; export the model again",
    ),
    (
        r"this GGUF file is version (\d+)",
        "the file is of GGUF version {1}, which this llama.cpp cannot read; install a newer one",
    ),
    (
        r"tensor '([^']*)' data is not within the file bounds",
        "the file is cut: {1} lies beyond its end; export the model again",
    ),
    (
        r"tensor '([^']*)' has invalid data",
        "the file is damaged: {1} holds what is no number; export the model again",
    ),
    (
        r"tensor '([^']*)' has wrong shape; expected (.*?), got (.*)",
        "the file contradicts itself: {1} should be {2} and is {3}; export the model again",
    ),
    (r"failed to open GGUF file '([^']*)'", "there is no file {1}; export the model again"),
    (
        r"hint: maybe wrong base model|model arch and LoRA arch mismatch",
        "the adapter belongs to another base; export it again with the base that it was trained on",
    ),
    (
        r"quantized V cache requires flash_attn",
        "cache_type_v is quantized: set flash_attn to on, or cache_type_v to f16",
    ),
    (
        r"no kernel image is available|hipErrorNoBinaryForGpu",
        "this llama.cpp was built for other GPUs; put one that was built for this GPU on PATH",
    ),
    (r"(?:CUDA|HIP|ROCm) error: (.+)", "its GPU failed: {1}"),
)
