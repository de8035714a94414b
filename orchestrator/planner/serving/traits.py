"""How serving engines differ in what planning needs: who takes how much memory, and how large a batch may grow.

The adapters in engines/ start and ask engines; this table only describes them, for targets that run nowhere yet.
"""

from typing import Literal

from orchestrator.config import Model
from orchestrator.errors import InputError
from orchestrator.plugins import nearest

GiB = 2**30
LARGE = 70 * GiB
"""From this memory on, engines choose their larger default batches."""


class EngineTraits(Model):
    """One engine's habits."""

    name: str
    """As in a recipe."""
    budget: Literal["total", "free", "all"]
    """Its share is of the total memory, of what is free after loading, or it takes what its options add up to."""
    share: float
    """That share, by default."""
    reserve: int
    """Bytes that it holds outside weights, cache and activations: context, libraries, allocator."""
    batches: tuple[tuple[int, int], tuple[int, int]]
    """Default sequences and tokens of one step: on a small GPU, on one of 70 GiB and more."""
    hybrid: bool = True
    """Its cache manager keeps no more than the window of sliding and chunked layers."""
    whole_sequence: bool = False
    """A sequence starts only when its longest possible answer has room; otherwise cache is taken as it grows."""
    up_front: bool = False
    """The cache of every slot is allocated when it starts, for the whole context."""
    narrow_kv: bool = False
    """Keys and values are fp8 by default where the weights are."""
    graph_bytes: int = 0
    """Captured graphs, per layer."""
    logit_bytes: int = 20
    """For each word of the vocabulary of each sequence of a step: logits, probabilities, their sort and its indices."""
    splits_layers: bool = False
    """Several GPUs take turns with whole layers rather than sharing each of them."""
    constants: str
    """Section of fitted.yaml that its speed is predicted with."""

    def batch(self, memory: int) -> tuple[int, int]:
        """Default sequences and tokens of one step on a GPU of this memory."""
        return self.batches[memory >= LARGE]


_ENGINES = {
    found.name: found
    for found in (
        # vllm/v1 defaults by device memory; 1.79 GiB outside torch and 1.26 GiB of activations for Llama-3-8B on an
        # H100 (vLLM pull request 10511); 0.92 of the total since 0.30
        EngineTraits(
            name="vllm",
            budget="total",
            share=0.92,
            reserve=int(1.0 * GiB),
            batches=((256, 2048), (1024, 8192)),
            graph_bytes=16 * 2**20,
            constants="vllm",
        ),
        EngineTraits(
            name="sglang",
            budget="total",
            share=0.88,
            reserve=int(1.0 * GiB),
            batches=((256, 2048), (2048, 8192)),
            graph_bytes=16 * 2**20,
            constants="sglang",
        ),
        # batch 2048 and 8192 tokens are BuildConfig's; kv_cache_free_gpu_memory_fraction 0.9
        EngineTraits(
            name="tensorrt_llm",
            budget="free",
            share=0.9,
            reserve=int(1.5 * GiB),
            batches=((2048, 8192), (2048, 8192)),
            whole_sequence=True,
            logit_bytes=6,  # kernels that sort nothing: logits in 16 and in 32 bits
            narrow_kv=True,
            graph_bytes=16 * 2**20,
            constants="tensorrt_llm",
        ),
        # 4 slots share n_ctx; compute buffers follow the micro-batch of 512 tokens
        EngineTraits(
            name="llama_cpp",
            budget="all",
            share=1.0,
            reserve=int(0.5 * GiB),
            batches=((4, 512), (4, 512)),
            up_front=True,
            logit_bytes=4,
            splits_layers=True,
            constants="llama_cpp",
        ),
        EngineTraits(
            name="transformers",
            budget="all",
            share=1.0,
            reserve=int(0.8 * GiB),
            batches=((1, 2**20), (1, 2**20)),
            hybrid=False,
            constants="transformers",
        ),
    )
}
_ALIASES = {"tensorrt-llm": "tensorrt_llm", "trtllm": "tensorrt_llm", "llama.cpp": "llama_cpp", "hf": "transformers"}


def engines() -> list[str]:
    """Names of the engines that can be planned."""
    return sorted(_ENGINES)


def traits(engine: str) -> EngineTraits:
    """Of the engine of that name. Raises InputError with the nearest name."""
    name = engine.strip().lower()
    found = _ENGINES.get(_ALIASES.get(name, name.replace("-", "_")))
    if found is None:
        raise InputError(f"the planner has no figures for an engine {engine!r}; {nearest(engine, engines())}")
    return found
