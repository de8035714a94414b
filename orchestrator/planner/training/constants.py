"""Constants of the training models. `benchmarks/planner.py --fit` refits the fitted ones on the calibration tables."""

from orchestrator.catalog.models import ModelFacts
from orchestrator.config import Model


class MemoryConstants(Model):
    """Of `memory.py`."""

    activations: float = 1.0
    """Kept activations, relative to the tensors that are counted: what the count misses. Fitted."""
    fragmentation: float = 0.06
    """Reserved over allocated memory, less one, of everything that comes and goes within a step. Fitted."""
    states_low: float = 0.9
    """Lower end of the interval for what lasts (weights, adapters, optimizer), relative to the prediction."""
    states_high: float = 1.15
    """Upper end: what a loader leaves behind."""
    moving_low: float = 0.7
    """Lower end for the rest."""
    moving_high: float = 1.8
    """Upper end. Of the calibration tables' rows 94 % are inside, of the worst source with many rows three in four:
    how long the longest row is, is seldom known."""
    context_bytes: float = 0.6 * 2**30
    """CUDA context, library handles and NCCL's buffers; 0.45-0.55 GiB and 0.1-0.4 GiB in nvidia-smi, not in torch."""


MEMORY = MemoryConstants()
"""The shipped ones."""


UNVERIFIED = 0.1
"""The interval is wider by that on each side for dimensions that were not read in the model's own configuration."""
UNMEASURED = 0.1
"""And for experts, latent and linear attention: hardly a row of the calibration tables has them."""


def doubt(model: ModelFacts, *others: bool) -> float:
    """What both ends of an interval move away by; `others` are further facts, verified or not."""
    unusual = model.experts is not None or any(one.kind in ("linear", "mla") for one in model.attention)
    return 1 + UNVERIFIED * (1 - min([model.verified, *others])) + UNMEASURED * unusual


class SpeedConstants(Model):
    """Of `speed.py`."""

    products: float = 0.7
    """Share of a GPU's dense peak that large matrix products reach in 16 bits, where power is no limit. Fitted."""
    quantized_products: float = 0.7
    """And in FP8 and FP4, scales and casts included. Fitted."""
    expert_products: float = 0.4
    """Of either, in grouped products of experts, where each sees a share of the tokens. Fitted."""
    attention: float = 0.3
    """Share of the 16-bit peak in fused attention. Fitted."""
    joules: float = 0.8e-12
    """Of a 16-bit FLOP at the boost clock. An A100 has 1.28 W for each TFLOP/s and holds its clock, an H100 0.71 and
    does not, a 500 W H100 0.51."""
    traffic: float = 1.2
    """Times that a kept activation is moved to or from memory in each pass over a layer. Fitted."""
    bandwidth: float = 0.85
    """Share of the memory's bandwidth that streaming kernels reach; aiconfigurator has 0.8, STREAM about 0.9."""
    launch: float = 1.4e-3
    """Seconds that Python takes to start one eager layer's kernels in one pass. Fitted."""
    adapter_launch: float = 0.15e-3
    """And those of an adapter on one matrix. Fitted."""
    expert_launch: float = 3e-3
    """And those of a layer of experts, which waits to learn how many tokens each one gets. Fitted."""
    sync: float = 0.25
    """Share of the shorter of Python's and the GPU's time that is not hidden, as each step waits for its loss."""
    fused_launch: float = 0.3
    """Share of that with compiled or fused kernels."""
    links: float = 0.75
    """Share of the links' bandwidth that collective operations reach; NCCL's bus bandwidth on NVLink is 70-80 %."""
    overlap: float = 0.8
    """Share of the shorter of computation and FSDP's communication that is hidden."""
    low: float = 0.6
    """Lower end of the interval, relative to the prediction."""
    high: float = 1.45
    """Upper end."""


SPEED = SpeedConstants()
"""The shipped ones."""
