"""`engine_args` of TensorRT-LLM by its own names (LlmArgs), and the YAML file that they become."""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from orchestrator.config import Model


class KvCacheConfig(Model):
    """`kv_cache_config`."""

    free_gpu_memory_fraction: float = Field(default=0.9, gt=0, le=1)
    """Share for the KV cache of the memory that is free once the weights are loaded."""
    enable_block_reuse: bool = True
    """Keep the blocks of finished requests for prompts that begin alike."""
    dtype: Literal["auto", "fp8"] = "auto"
    """Number format of keys and values; auto: what the checkpoint says."""


class CudaGraphConfig(Model):
    """`cuda_graph_config`."""

    max_batch_size: int | None = Field(default=None, ge=1)
    """Largest batch that a graph is captured for; by default that of the engine."""
    enable_padding: bool = True
    """Pad a batch up to the next captured size."""


class Options(Model):
    """`engine_args` for TensorRT-LLM, PyTorch backend."""

    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs that share each layer."""
    pipeline_parallel_size: int = Field(default=1, ge=1)
    """Groups of layers, each on GPUs of its own."""
    moe_expert_parallel_size: int | None = Field(default=None, ge=1)
    """GPUs that the experts of a mixture are spread over; by default each is cut over all of them."""
    max_batch_size: int = Field(default=256, ge=1)
    """Requests in one step, at most."""
    max_num_tokens: int = Field(default=8192, ge=1)
    """Tokens in one step, at most."""
    max_seq_len: int | None = Field(default=None, ge=1)
    """Longest request, prompt and answer together; by default what the model was made for."""
    kv_cache_config: KvCacheConfig = KvCacheConfig()
    """The KV cache: free_gpu_memory_fraction, enable_block_reuse, dtype."""
    cuda_graph_config: CudaGraphConfig | None = CudaGraphConfig()
    """CUDA graphs of the decoding steps: max_batch_size, enable_padding; null turns them off."""
    enable_chunked_prefill: bool = False
    """Cut long prompts over several steps, so that they do not hold up the others."""
    disable_overlap_scheduler: bool = False
    """Do not prepare a step while the one before it runs."""
    attn_backend: Literal["TRTLLM", "FLASHINFER", "VANILLA"] = "TRTLLM"
    """Attention kernels."""
    stream_interval: int = Field(default=1, ge=1)
    """Tokens between two events of a stream."""
    num_postprocess_workers: int = Field(default=0, ge=0)
    """Processes that turn tokens into text; 0: the server's own."""
    enable_iter_perf_stats: bool = True
    """Keep statistics of the steps for /metrics; costs a little speed."""
    return_perf_metrics: bool = True
    """Show Prometheus text under /prometheus/metrics."""


def planned(options: Options) -> dict[str, Any]:
    """What planning needs, by the names of `planner.serving.Serving`."""
    found = {
        "tensor": options.tensor_parallel_size,
        "pipeline": options.pipeline_parallel_size,
        "expert_parallel": (options.moe_expert_parallel_size or 1) > 1,
        "max_model_len": options.max_seq_len,
        "max_num_seqs": options.max_batch_size,
        "max_num_batched_tokens": options.max_num_tokens,
        "kv_dtype": options.kv_cache_config.dtype,
        "gpu_memory_utilization": options.kv_cache_config.free_gpu_memory_fraction,
        "cuda_graphs": options.cuda_graph_config is not None,
    }
    return {name: value for name, value in found.items() if value is not None}


def as_yaml(options: Options, **more: Any) -> str:
    """The file of --extra_llm_api_options: every option, since in 1.2 it silently overrides the command line, and from
    1.3 on the command line overrides it; so no key stands in both.
    """
    given = options.model_dump(exclude_none=True)
    if options.cuda_graph_config is None:
        given["cuda_graph_config"] = None  # left out, it would be on
    return yaml.safe_dump(given | more, sort_keys=False)


def file_name(alias: str) -> str:
    """The file's name in a launch's directory."""
    return f"{Path(alias).name}.trtllm.yaml"
