"""Whether a model's matrices can be shared by GPUs, each with an equal part of every layer.

The rules are vLLM's: `verify_with_parallel_config` (heads), `QKVParallelLinear` (key-value heads are divided, or whole
copies of them), `divide` in `RowParallelLinear` (width of the FFN), `VocabParallelEmbedding` (a vocabulary is padded to
64), and for formats whose weights share scales, that no GPU gets a part of a group ("Weight input_size_per_partition =
14784 is not divisible by min_thread_k = 128"). TensorRT-LLM divides in the same way.
"""

from collections.abc import Iterator

from orchestrator.catalog.models import ModelFacts
from orchestrator.catalog.parameters import EXPERTS, linear_layers
from orchestrator.planner.serving.formats import Format

VOCABULARY_PADDING = 64
DEGREES = (1, 2, 4, 8, 16)
"""That are proposed."""
_CUT_INPUTS = ("o_proj", "down_proj", "out_proj")
"""Ends of the names of matrices of which each GPU gets some input columns; of the others, output rows."""


def indivisible(model: ModelFacts, tensor: int, served: Format, *, expert_parallel: bool = False) -> list[str]:
    """What does not divide by so many GPUs, each in a few words; empty where everything does, or is not known."""
    found = [*_attention(model, tensor), *_widths(model, tensor, expert_parallel), *_vocabulary(model, tensor)]
    return found or list(_groups(model, tensor, served))


def degrees(model: ModelFacts, served: Format, *, expert_parallel: bool = False) -> list[int]:
    """Numbers of GPUs that the model can be shared by."""
    return [n for n in DEGREES if not indivisible(model, n, served, expert_parallel=expert_parallel)]


def _attention(model: ModelFacts, tensor: int) -> Iterator[str]:
    for kind in model.attention:
        if kind.heads % tensor:
            yield f"{kind.heads} attention heads"
        elif kind.kind not in ("mla", "linear") and kind.kv_heads % tensor and tensor % kind.kv_heads:
            yield f"{kind.kv_heads} key-value heads"


def _widths(model: ModelFacts, tensor: int, expert_parallel: bool) -> Iterator[str]:
    experts = model.experts
    if model.intermediate_size and model.intermediate_size % tensor:
        yield f"an FFN of width {model.intermediate_size}"
    if experts and not expert_parallel and experts.intermediate_size % tensor:
        yield f"experts of width {experts.intermediate_size}"


def _vocabulary(model: ModelFacts, tensor: int) -> Iterator[str]:
    padded = -(-(model.vocab_size or 0) // VOCABULARY_PADDING) * VOCABULARY_PADDING
    if padded % tensor:
        yield f"a vocabulary of {model.vocab_size} (padded to {padded})"


def _groups(model: ModelFacts, tensor: int, served: Format) -> Iterator[str]:
    """Of weights that share a scale, in dense layers: kernels of experts pad their parts."""
    for matrix in linear_layers(model):
        inputs = matrix.inputs // tensor
        if matrix.name.endswith(_CUT_INPUTS) and not matrix.name.startswith(EXPERTS) and inputs % served.group:
            yield f"{matrix.inputs} inputs of {matrix.name}, in groups of {served.group} ({served.name}),"
            return
