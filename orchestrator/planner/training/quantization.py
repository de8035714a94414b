"""Bytes of a model's weights while it is trained: what each type costs, and which weights stay in 16 bits.

Loaders quantize the matrices of the blocks; embedding, output head, norms, biases and routers keep 16 bits. The
formats of served checkpoints are in `formats.py`.
"""

from typing import NamedTuple

from orchestrator.catalog.models import ModelFacts
from orchestrator.catalog.parameters import Matrix, linear_layers, parameters, part
from orchestrator.errors import InputError
from orchestrator.planner.estimate import Unknown
from orchestrator.plugins import nearest

DTYPE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Bytes of one number of a type that tensors are computed in."""


class Packing(NamedTuple):
    """How a quantized matrix is stored."""

    bits: float
    """Of one weight."""
    block: int
    """Weights that share a constant; 0: a row of the matrix does."""
    constant_bits: float
    """Of one constant."""


PACKINGS = {
    "nf4": Packing(4, 64, 32),  # QLoRA, arXiv:2305.14314 section 3: an fp32 absmax for 64 weights
    "nf4-dq": Packing(4, 64, 8 + 32 / 256),  # and doubly quantized: 8 bits, with an fp32 for 256 of them
    "int4": Packing(4, 128, 16 + 4),  # GPTQ, AWQ: an fp16 scale and a zero point for 128
    "int8": Packing(8, 0, 32),  # LLM.int8(): an fp32 for an output row
    "fp8": Packing(8, 0, 32),
    "mxfp4": Packing(4, 32, 8),
    "nvfp4": Packing(4, 16, 8),
}
"""Types whose weights are packed and unpacked for every product; they cannot be trained themselves."""


class WeightBytes(NamedTuple):
    """Where the bytes of a model's weights are."""

    blocks: float
    """The matrices of the blocks, in the chosen type."""
    constants: float
    """Their quantization constants."""
    kept: float
    """What stays in 16 bits (or in the plain type): embedding, head, norms, biases, routers, vision tower."""

    @property
    def total(self) -> float:
        """All of them."""
        return self.blocks + self.constants + self.kept


def weight_bytes(model: ModelFacts, dtype: str, *, share_in_16_bits: float = 0) -> WeightBytes | Unknown:
    """Bytes of the whole model in that type, `share_in_16_bits` of its matrices left unquantized.

    Raises InputError for a type that nobody trains in; Unknown when the dimensions are not known.
    """
    check_dtype(dtype)
    counted = parameters(model)
    if isinstance(counted, Unknown):
        return _certain(model, dtype, counted.reason)
    matrices = [matrix for matrix in linear_layers(model) if part(matrix.name) != "router"]
    weights = sum(matrix.parameters for matrix in matrices)
    others = counted.total - weights
    if dtype in DTYPE_BYTES:
        return WeightBytes(weights * DTYPE_BYTES[dtype], 0, others * DTYPE_BYTES[dtype])
    packed, plain = 1 - share_in_16_bits, share_in_16_bits * 2
    each = PACKINGS[dtype].bits / 8
    constants = sum(_constants(matrix, PACKINGS[dtype]) for matrix in matrices)
    return WeightBytes(weights * (packed * each + plain), packed * constants, others * 2)


def bits(dtype: str) -> float:
    """Of one weight in a block, without constants."""
    return DTYPE_BYTES[dtype] * 8 if dtype in DTYPE_BYTES else PACKINGS[dtype].bits


def check_dtype(dtype: str) -> None:
    """Raises InputError, with the nearest names, unless weights can have that type while training."""
    known = [*DTYPE_BYTES, *PACKINGS]
    if dtype not in known:
        raise InputError(f"unknown type of weights {dtype!r}; {nearest(dtype, known)}")


def _constants(matrix: Matrix, packing: Packing) -> float:
    blocks = matrix.parameters / packing.block if packing.block else matrix.outputs * matrix.count
    return blocks * packing.constant_bits / 8


def _certain(model: ModelFacts, dtype: str, reason: str) -> Unknown:
    """The published total in that type is a lower bound; 5 % off for what is counted differently."""
    published = model.published_parameters
    return Unknown(reason=reason, low=None if published is None else published * bits(dtype) / 8 * 0.95)
