"""Peak memory of a fine-tune on the fullest GPU, as a sum of parts.

Three moments can be the peak, and the highest is taken: while the loss is computed (all kept activations and the
logits), at the first layer of the backward pass (kept activations, one layer recomputed, its gradients), and while
the optimizer steps (gradients and its temporary copies). On resuming, loading the optimizer's states is a fourth.

What is predicted by default is what nvidia-smi shows: PyTorch's reserved memory and the CUDA context; compare it with
`Gpu.memory_visible`. `measure` asks for PyTorch's own max_memory_reserved or max_memory_allocated.
"""

from typing import Literal

from orchestrator.catalog.gpus import Gpu
from orchestrator.catalog.models import ModelFacts
from orchestrator.catalog.parameters import linear_layers, parameters
from orchestrator.planner.estimate import Estimate, Term, Unknown
from orchestrator.planner.training.activations import activations
from orchestrator.planner.training.constants import MEMORY, MemoryConstants, doubt
from orchestrator.planner.training.finetune import (
    SHARDS_GRADIENTS,
    SHARDS_WEIGHTS,
    FineTune,
    check,
)
from orchestrator.planner.training.optimizers import optimizer
from orchestrator.planner.training.quantization import DTYPE_BYTES, WeightBytes, weight_bytes
from orchestrator.planner.training.states import States, held

Measure = Literal["device", "reserved", "allocated"]
CUBLAS_WORKSPACE = {"sm_70": 8.125 * 2**20, "sm_75": 8.125 * 2**20, "sm_80": 8.125 * 2**20, "sm_89": 8.125 * 2**20}
"""Of one handle, as PyTorch asks for it: 4096 KiB twice and 16 KiB eight times; from Hopper on 32 MiB."""
DORA_NORM_BYTES = 8
"""A weight beside its adapter's product, both in fp32, while DoRA takes the norm of their sum."""


def memory(
    model: ModelFacts,
    tune: FineTune,
    gpu: Gpu | None = None,
    *,
    resume: bool = False,
    measure: Measure = "device",
    share_in_16_bits: float = 0,
    constants: MemoryConstants = MEMORY,
) -> Estimate | Unknown:
    """Bytes at the peak on the fullest GPU. Raises InputError for a fine-tune that cannot exist.

    `resume` is the start from a checkpoint, never less than the first. Unknown has what the weights alone need.
    """
    check(model, tune)
    weights, counted = weight_bytes(model, tune.base_dtype, share_in_16_bits=share_in_16_bits), parameters(model)
    if isinstance(weights, Unknown) or isinstance(counted, Unknown):
        return _at_least(weights, tune)
    found = _terms(model, tune, gpu, held(model, tune, weights, counted), resume, constants)
    if measure == "allocated":
        found = [term for term in found if term.name != "fragmentation"]
    if measure == "device":
        found.append(Term(name="context", amount=constants.context_bytes, because="CUDA context, libraries and NCCL"))
    value, (low, high) = sum(term.amount for term in found), _interval(found, doubt(model), constants)
    return Estimate(unit="bytes", value=value, terms=found, low=low, high=high)


def largest_tensor(model: ModelFacts) -> int:
    """Numbers in the largest matrix: a loader holds it beside what it has already quantized."""
    ends = (model.vocab_size or 0) * (model.hidden_size or 0)
    return max([ends, *(matrix.inputs * matrix.outputs for matrix in linear_layers(model))])


def _at_least(weights: WeightBytes | Unknown, tune: FineTune) -> Unknown:
    assert isinstance(weights, Unknown), "weights and parameters are unknown together"
    sharding = tune.sharding
    shards = sharding.tensor * sharding.pipeline * (sharding.replicas if sharding.strategy in SHARDS_WEIGHTS else 1)
    low = None if weights.low is None or tune.offload == "all" else weights.low / shards
    return Unknown(reason=weights.reason, low=low)


LASTING = ("weights", "quantization constants", "adapters", "optimizer")
"""Terms that are nearly certain."""


def _interval(terms: list[Term], wider: float, constants: MemoryConstants) -> tuple[float, float]:
    """What lasts is known better than what comes and goes."""
    lasting = sum(term.amount for term in terms if term.name in LASTING)
    moving = sum(term.amount for term in terms) - lasting
    low = lasting * constants.states_low + moving * constants.moving_low / wider
    return low, lasting * (constants.states_high + wider - 1) + moving * constants.moving_high * wider


def _terms(
    model: ModelFacts, tune: FineTune, gpu: Gpu | None, states: States, resume: bool, constants: MemoryConstants
) -> list[Term]:
    """Those of the moment that needs most."""
    lasting = _lasting(model, tune, states)
    moments = _moments(model, tune, gpu, states, constants)
    moments.append(_loading(model, tune))
    if resume:
        moments.append(
            [
                _optimizer_term(tune, states),
                Term(name="checkpoint", amount=states.loaded, because="loaded beside what it replaces"),
            ]
        )
    highest = max(moments, key=lambda terms: sum(term.amount for term in terms))
    moving = sum(term.amount for term in highest if term.name != "optimizer")
    fragments = Term(
        name="fragmentation",
        amount=constants.fragmentation * moving,
        because=f"{constants.fragmentation:.0%} of what comes and goes within a step",
    )
    return [term for term in [*lasting, *highest, fragments] if term.amount]


def _lasting(model: ModelFacts, tune: FineTune, states: States) -> list[Term]:
    split = tune.sharding
    over = f" over {split.gpus} GPUs ({split.strategy})" if split.gpus > 1 else ""
    return [
        Term(name="weights", amount=states.weights, because=f"{model.id} in {tune.base_dtype}{over}"),
        Term(name="quantization constants", amount=states.constants, because=f"of {tune.base_dtype}"),
        Term(
            name="adapters",
            amount=states.adapters,
            because=f"{states.trained:,.0f} parameters of rank {tune.lora_r} in {tune.trained_dtype}{over}",
        ),
        Term(name="gathered layers", amount=states.buffers, because="two blocks and one end, whole, for their turn"),
    ]


def _optimizer_term(tune: FineTune, states: States) -> Term:
    kind = optimizer(tune.optimizer)
    master = " and fp32 master weights" if tune.master_weights else ""
    paged = ", paged to the host" if kind.paged else ""
    each = f"{kind.states:g} states for each of {states.trained:,.0f}"
    return Term(name="optimizer", amount=states.optimizer, because=f"{tune.optimizer}: {each}{master}{paged}")


def _moments(
    model: ModelFacts, tune: FineTune, gpu: Gpu | None, states: States, constants: MemoryConstants
) -> list[list[Term]]:
    """What comes and goes beside the optimizer's states: at the loss, in the backward pass and in the step."""
    found, split = activations(model, tune), tune.sharding.tensor
    workspace = CUBLAS_WORKSPACE.get(gpu.arch if gpu else "", 32 * 2**20)
    kept = constants.activations * found.layers / split
    layer = constants.activations * found.layer / split
    whole = layer if tune.checkpointing != "none" else 0
    stored = Term(name="activations", amount=kept, because=found.because)
    recomputed = Term(name="activations", amount=kept + whole, because=f"{found.because}, and one layer whole")
    last = Term(name="activations", amount=layer, because="of the first layer, the last one to be left")
    tokens, vocab = f"{tune.tokens:.0f} tokens", model.vocab_size
    logits = Term(name="logits", amount=found.logits / split, because=f"{tokens} x {vocab} and copies ({tune.loss})")
    rest = Term(name="logits", amount=found.kept_logits / split, because=f"{tokens} x {vocab} until the step ends")
    work = workspace + _unpacked(model, tune) / split
    loss_work = Term(name="workspace", amount=work, because="cuBLAS, and the largest matrix unpacked")
    results = Term(name="workspace", amount=work + found.gradients / split, because="gradients of one layer's results")
    step = Term(name="workspace", amount=workspace + states.step, because=f"temporary copies of {tune.optimizer}")
    before, one, all_ = _gradient_terms(model, tune, states)
    cast = _cast_weights(states, tune)
    kept_states = _optimizer_term(tune, states)
    return [
        [kept_states, before, stored, logits, loss_work, *cast],
        [kept_states, one, recomputed, rest, results, *cast],
        [kept_states, all_, last, rest, results],
        [kept_states, all_, step],
    ]


def _loading(model: ModelFacts, tune: FineTune) -> list[Term]:
    """A quantized model: one tensor after the other comes in 16 bits; without the optimizer, which is made later."""
    if tune.base_dtype in DTYPE_BYTES:
        return []
    amount = largest_tensor(model) * DTYPE_BYTES[tune.compute_dtype]
    return [Term(name="workspace", amount=amount, because="the largest tensor in 16 bits while the model is loaded")]


def _gradient_terms(model: ModelFacts, tune: FineTune, states: States) -> tuple[Term, Term, Term]:
    """Of weights: before the backward pass, after its first layer, and at its end."""
    count = f"{states.trained:,.0f} trained parameters"
    shards = tune.sharding.replicas if tune.sharding.strategy in SHARDS_GRADIENTS else 1
    whole = states.unit_gradients * (1 - 1 / shards)
    end = Term(name="gradients", amount=states.gradients + whole, because=f"{count}, one layer's not yet scattered")
    if tune.gradient_accumulation_steps > 1 and not tune.gradient_release:
        before = Term(name="gradients", amount=states.gradients, because=f"{count}, of the micro-batches before")
        return before, end, end
    first = Term(name="gradients", amount=states.unit_gradients, because="of the head and one layer so far")
    return Term(name="gradients", amount=0, because="none yet"), first, end


def _cast_weights(states: States, tune: FineTune) -> list[Term]:
    """Autocast keeps the 16-bit copies of trained fp32 weights until the forward pass has ended."""
    whole = tune.sharding.strategy not in SHARDS_WEIGHTS
    if not (tune.method == "full" and tune.base_dtype == "fp32" and tune.compute_dtype != "fp32" and whole):
        return []
    return [Term(name="cast weights", amount=states.weights / 2, because=f"copies in {tune.compute_dtype} by autocast")]


def _unpacked(model: ModelFacts, tune: FineTune) -> float:
    """The largest matrix in the compute type where weights are packed; DoRA's norm of it."""
    packed = tune.base_dtype not in DTYPE_BYTES
    each = DTYPE_BYTES[tune.compute_dtype] if packed else 0
    each = max(each, DORA_NORM_BYTES if tune.method == "dora" else 0)
    return each * max((matrix.inputs * matrix.outputs for matrix in linear_layers(model)), default=0)
