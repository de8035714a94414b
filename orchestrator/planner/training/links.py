"""Seconds that a fine-tune spends on links: between GPUs, between nodes, and to the host's memory."""

from orchestrator.catalog.gpus import Gpu
from orchestrator.catalog.models import ModelFacts
from orchestrator.catalog.parameters import Parameters
from orchestrator.planner.training.constants import SpeedConstants
from orchestrator.planner.training.finetune import SHARDS_OPTIMIZER, SHARDS_WEIGHTS, FineTune, Sharding
from orchestrator.planner.training.optimizers import optimizer
from orchestrator.planner.training.quantization import DTYPE_BYTES, bits
from orchestrator.planner.training.states import trained_parameters

NODE_GPUS = 8
NVL72_GPUS = 72
"""GPUs that `Gpu.link_bandwidth` joins."""
HOST_BANDWIDTH = 200e9
"""Bytes/s that an optimizer on the host reaches, all its threads together; eight channels of DDR5 have 300e9."""


def communication(
    model: ModelFacts,
    tune: FineTune,
    gpu: Gpu,
    counted: Parameters,
    tokens: float,
    busy: float,
    constants: SpeedConstants,
) -> dict[str, float]:
    """Of one micro-batch of `tokens` on one GPU that computes for `busy` seconds, by kind; what is hidden left out."""
    sharding, each = tune.sharding, DTYPE_BYTES[tune.compute_dtype]
    inside = NVL72_GPUS if "nvl72" in gpu.id else NODE_GPUS
    hidden, layers = model.hidden_size or 0, (model.layers or 0) / sharding.pipeline
    found = {}
    if sharding.replicas > 1:
        link = _link(gpu, sharding.gpus <= inside, constants)
        sent = _sharded_bytes(model, tune, counted) / sharding.tensor / sharding.pipeline
        time = sent * (1 - 1 / sharding.replicas) / link
        found["sharding"] = max(time, busy) - busy + min(time, busy) * (1 - constants.overlap) if time else 0
    if sharding.tensor > 1:  # a reduction and a gathering, twice a layer, forward and backward
        share = 1 - 1 / sharding.tensor
        link = _link(gpu, sharding.tensor <= inside, constants)
        found["tensor parallel"] = 4 * 2 * layers * tokens * hidden * each * share / link
    if sharding.expert > 1 and model.experts:
        width = model.experts.latent_size or hidden
        sent = 4 * model.experts.layers / sharding.pipeline * tokens * width * each / sharding.tensor
        found["expert parallel"] = sent * _copies(model.experts.active, sharding, inside, gpu, constants)
    return found


def _copies(active: int, sharding: Sharding, inside: int, gpu: Gpu, constants: SpeedConstants) -> float:
    """Seconds to send one byte of a token to its experts; another node gets one copy, whatever it does with it."""
    near = min(sharding.expert, max(1, inside // sharding.tensor))
    nodes = sharding.expert / near
    others = min(nodes - 1, active * (1 - 1 / nodes))
    close = active * (1 - 1 / near) / _link(gpu, True, constants)
    return max(close, others / _link(gpu, False, constants))


def _link(gpu: Gpu, inside: bool, constants: SpeedConstants) -> float:
    """Bytes/s of one GPU, one direction; an unknown link is PCIe 4's 32 GB/s, an unknown network 100 Gbit/s."""
    known = gpu.link_bandwidth or gpu.pcie_bandwidth or 32e9
    return constants.links * (known if inside else min(known, gpu.node_bandwidth or 12.5e9))


def _sharded_bytes(model: ModelFacts, tune: FineTune, counted: Parameters) -> float:
    """Gathered for the forward and the backward pass, and gradients scattered; once a step where weights are whole."""
    trained = trained_parameters(model, tune)
    assert isinstance(trained, int)
    shared = counted.total
    if tune.sharding.expert > 1 and model.experts:
        shared = counted.total - counted.experts + counted.experts // tune.sharding.expert
    ratio = shared / counted.total
    scattered = trained * DTYPE_BYTES[tune.trained_dtype] * ratio
    if tune.sharding.strategy in SHARDS_WEIGHTS:
        return 2 * shared * min(DTYPE_BYTES[tune.compute_dtype], bits(tune.base_dtype) / 8) + scattered
    return 2 * scattered / tune.gradient_accumulation_steps


def offloading(model: ModelFacts, tune: FineTune, gpu: Gpu, counted: Parameters, constants: SpeedConstants) -> float:
    """Seconds of a micro-batch's share; the host's memory is shared by the GPUs of a node."""
    if tune.offload == "none":
        return 0
    trained = trained_parameters(model, tune)
    assert isinstance(trained, int)
    sharding, each = tune.sharding, DTYPE_BYTES[tune.trained_dtype]
    parts = sharding.tensor * sharding.pipeline * (sharding.replicas if sharding.strategy in SHARDS_OPTIMIZER else 1)
    pcie = (gpu.pcie_bandwidth or 32e9) * constants.links
    once = 2 * trained * each / parts / pcie  # gradients out, new weights in
    moved = optimizer(tune.optimizer).states * each * 2 + 3 * each
    once += trained * moved / parts * min(sharding.gpus, NODE_GPUS) / HOST_BANDWIDTH
    layers = 2 * counted.total * bits(tune.base_dtype) / 8 / parts / pcie if tune.offload == "all" else 0
    return layers + once / tune.gradient_accumulation_steps
