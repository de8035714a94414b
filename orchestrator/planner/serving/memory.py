"""Whether a serving target fits its GPUs, with what margin, and how much text it then holds at once.

    budget  = share of the GPU's visible memory that the engine takes        (vLLM, SGLang: `gpu_memory_utilization`)
    fixed   = weights + activations of the largest step + graphs + communication + engine + draft + adapters
    pool    = budget - fixed                       (TensorRT-LLM: its share of that)
    fits    : pool >= cache of the sequences that must run at once, one of `max_model_len` when none are named

All in bytes of the fullest GPU. Left out: fragmentation of the pool's last block, prefix sharing between sequences.
"""

from pydantic import Field

from orchestrator.catalog.gpus import Gpu
from orchestrator.catalog.kv_cache import kv_bytes, state_bytes_per_sequence
from orchestrator.catalog.models import ModelFacts
from orchestrator.catalog.parameters import linear_layers, parameters, part
from orchestrator.config import Model
from orchestrator.planner.estimate import Term, Unknown
from orchestrator.planner.serving.servable import check_servable
from orchestrator.planner.serving.serving import Serving, batched_tokens, check, context_length, sequences
from orchestrator.planner.serving.weights import gpu_weights

NCCL_BYTES = int(0.39e9)
"""Communication buffers of one GPU in a group; 342-392 MB in ai-dynamo/aiconfigurator's systems/*.yaml."""
RESIDUAL_COPIES = 4
"""Hidden states alive at the widest point of a block: residual, normed input, output, all-reduce buffer."""


class ServingFit(Model):
    """The verdict on one target."""

    fits: bool
    """Whether it starts, and holds the sequences asked for."""
    needed: float
    """Bytes of the fullest GPU, cache of those sequences included."""
    available: float
    """Bytes that the engine may take there."""
    margin: float
    """available - needed; negative: so much is missing."""
    terms: list[Term]
    """Parts of `needed`."""
    kv_pool: float = Field(ge=0)
    """Bytes that are left for the cache."""
    kv_bytes_per_token: float
    """Of a long sequence, on one GPU."""
    kv_tokens: int
    """Tokens that the pool holds in sequences of the context's length, of one copy of the model."""
    context: int
    """Tokens of one sequence, prompt and answer, that the verdict is about."""
    concurrent: int
    """Sequences of that length that are held at once, over all copies."""
    longest: int
    """The longest context that fits for a single sequence, no more than the model's own."""
    reason: str
    """The verdict in words: `needs 83.1 GiB, has 72.9 of 79.2 GiB visible`."""


def memory(
    model: ModelFacts, serving: Serving, gpu: Gpu, *, context: int | None = None, held: int = 1
) -> ServingFit | Unknown:
    """Of `held` sequences at once, over all copies, each of `context` tokens (default: the target's longest).

    Raises InputError for a layout or a format that the engine cannot run on this GPU.
    """
    check_servable(serving, gpu)
    return verdict(model, serving, gpu, context=context, held=held)


def verdict(
    model: ModelFacts, serving: Serving, gpu: Gpu, *, context: int | None = None, held: int = 1
) -> ServingFit | Unknown:
    """As `memory`, of a target that is known to run, whatever this version thinks of its format."""
    check(model, serving)
    length = context or context_length(model, serving)
    weights = gpu_weights(model, serving)
    if isinstance(weights, Unknown):
        return weights
    if length is None:
        return Unknown(reason=f"unknown: the context length of {model.id} is not in the catalog; set max_model_len")
    slots = sequences(serving, gpu) if serving.traits.up_front else -(-held // serving.data)
    terms = fixed_terms(model, serving, gpu, weights)
    cache = sequence_bytes(model, serving, length)
    terms.append(Term(name="kv cache", amount=slots * cache, because=_cache_because(model, serving, slots, length)))
    return _verdict(model, serving, gpu, terms, length, slots)


def fixed_terms(model: ModelFacts, serving: Serving, gpu: Gpu, weights: dict[str, float]) -> list[Term]:
    """Everything but the cache."""
    traits = serving.traits
    served = serving.format
    layers = (model.layers or 0) / serving.stages
    together = serving.tensor * serving.data > 1
    found = [
        Term(name="weights", amount=sum(weights.values()), because=_weights_because(weights, served.name)),
        Term(name="activations", amount=activations(model, serving, gpu), because=_step(serving, gpu)),
        Term(
            name="graphs",
            amount=traits.graph_bytes * layers if serving.cuda_graphs else 0,
            because=f"{layers:.0f} layers x {traits.graph_bytes / 2**20:.0f} MiB of captured decode steps",
        ),
        Term(name="communication", amount=NCCL_BYTES if together else 0, because=f"{serving.tensor} GPUs share layers"),
        Term(name="engine", amount=traits.reserve, because="context, libraries and allocator"),
    ]
    if serving.draft:
        found.append(_draft(serving.draft, serving))
    if serving.lora_slots:
        found.append(_adapters(model, serving))
    return found


def activations(model: ModelFacts, serving: Serving, gpu: Gpu) -> float:
    """Peak of the largest step: the widest FFN over all its tokens, or the logits over all its sequences."""
    tokens, batch = batched_tokens(serving, gpu), sequences(serving, gpu)
    if context := context_length(model, serving):
        tokens = min(tokens, max(batch, 1) * context)
    hidden = model.hidden_size or 0
    widths = [3 * (model.intermediate_size or 0) / serving.shards]
    if experts := model.experts:
        each = hidden * 2 + 3 * experts.intermediate_size / (1 if serving.expert_parallel else serving.shards)
        widths.append(experts.active * each + 3 * experts.shared_intermediate_size / serving.shards)
    queries = max((found.heads * found.head_dim * 3 / serving.shards for found in model.attention), default=0)
    block = tokens * 2 * (RESIDUAL_COPIES * hidden + max(*widths, queries))
    logits = min(batch, tokens) * (model.vocab_size or 0) * serving.traits.logit_bytes
    return max(block, logits)


def sequence_bytes(model: ModelFacts, serving: Serving, tokens: int) -> float:
    """Cache and recurrent state of one sequence of so many tokens, on one GPU, the draft's included."""
    found = _cache(model, serving, tokens) / serving.stages
    if serving.draft:
        found += kv_bytes(serving.draft, tokens, 2, tensor=serving.shards)
    return found


def _cache(model: ModelFacts, serving: Serving, tokens: int) -> float:
    hybrid, shards = serving.traits.hybrid, serving.shards
    keys = kv_bytes(model, tokens, serving.kv_bytes, tensor=shards, hybrid=hybrid)
    return keys + state_bytes_per_sequence(model, tensor=shards)


def pool_bytes(serving: Serving, gpu: Gpu, fixed: float) -> float:
    """What is left for the cache when everything else takes `fixed` bytes."""
    share = serving.gpu_memory_utilization or serving.traits.share
    total = float(gpu.memory_visible)
    if serving.traits.budget == "free":
        return max(0.0, (total - fixed) * share)
    return max(0.0, total * (share if serving.traits.budget == "total" else 1.0) - fixed)


def capacity(model: ModelFacts, serving: Serving, pool: float, tokens: int) -> int:
    """Sequences of so many tokens that the pool of one copy holds."""
    return int(pool // max(1.0, sequence_bytes(model, serving, max(1, tokens))))


def longest_context(model: ModelFacts, serving: Serving, pool: float, most: int) -> int:
    """Tokens of the longest single sequence that the pool holds, up to `most`; by bisection: windows bend the sum."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sequence_bytes(model, serving, middle) <= pool else (low, middle - 1)
    return low


def _verdict(model: ModelFacts, serving: Serving, gpu: Gpu, terms: list[Term], length: int, slots: int) -> ServingFit:
    fixed = sum(term.amount for term in terms[:-1])
    cache = terms[-1].amount
    pool = pool_bytes(serving, gpu, fixed)
    share = serving.gpu_memory_utilization or serving.traits.share
    total = float(gpu.memory_visible)
    free = serving.traits.budget == "free"
    available = total if serving.traits.budget in ("all", "free") else total * share
    needed = fixed + (cache / share if free else cache)
    batch = sequences(serving, gpu)
    at_once = min(capacity(model, serving, pool, length), batch)
    return ServingFit(
        fits=needed <= available,
        needed=needed,
        available=available,
        margin=available - needed,
        terms=terms,
        kv_pool=pool,
        kv_bytes_per_token=sequence_bytes(model, serving, length) - sequence_bytes(model, serving, length - 1),
        kv_tokens=int(pool / max(1.0, sequence_bytes(model, serving, length)) * length),
        context=length,
        concurrent=at_once * serving.data,
        longest=longest_context(model, serving, pool / (batch if serving.traits.up_front else 1), _most(model, length)),
        reason=_reason(needed, available, total),
    )


def _most(model: ModelFacts, length: int) -> int:
    return max(model.max_context or 0, length)


def _reason(needed: float, available: float, visible: float) -> str:
    of = "" if available == visible else f"{available / 2**30:.1f} of "
    verdict = "needs" if needed <= available else "does not fit: needs"
    return f"{verdict} {needed / 2**30:.1f} GiB, has {of}{visible / 2**30:.1f} GiB visible"


def _weights_because(weights: dict[str, float], name: str) -> str:
    parts = ", ".join(f"{part} {amount / 2**30:.2f}" for part, amount in weights.items() if amount >= 2**20)
    return f"{name}, GiB of one GPU: {parts}"


def _step(serving: Serving, gpu: Gpu) -> str:
    return f"one step of {batched_tokens(serving, gpu)} tokens, logits of {sequences(serving, gpu)} sequences"


def _cache_because(model: ModelFacts, serving: Serving, slots: int, length: int) -> str:
    kinds = ", ".join(f"{found.layers} {found.kind}" for found in model.attention)
    return f"{slots} sequences x {length} tokens, {serving.kv_type}, layers: {kinds}"


def _draft(draft: ModelFacts, serving: Serving) -> Term:
    counted = parameters(draft)
    total = (counted.low or 0) if isinstance(counted, Unknown) else counted.total
    amount = total * 2 / serving.shards
    return Term(name="draft", amount=amount, because=f"{draft.id}: {total / 1e9:.2f}e9 weights in 16 bits")


def _adapters(model: ModelFacts, serving: Serving) -> Term:
    """A is whole on each GPU, B is cut (vLLM without --fully-sharded-loras); routed experts have none."""
    targets = [found for found in linear_layers(model) if part(found.name) in ("attention", "ffn", "shared_experts")]
    width = sum(found.count * (found.inputs + found.outputs / serving.shards) for found in targets) / serving.stages
    amount = serving.lora_slots * serving.lora_rank * width * 2
    return Term(
        name="adapters",
        amount=amount,
        because=f"{serving.lora_slots} slots x rank {serving.lora_rank} x {width:.0f} x 2",
    )
