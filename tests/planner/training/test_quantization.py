"""Bytes of weights by type, against counts by hand."""

import pytest

from orchestrator.catalog.models import Attention, Experts, ModelFacts
from orchestrator.errors import InputError
from orchestrator.planner.estimate import Unknown
from orchestrator.planner.training.quantization import PACKINGS, WeightBytes, weight_bytes

LLAMA = ModelFacts(
    id="meta-llama/Llama-2-7b-hf",
    layers=32,
    hidden_size=4096,
    intermediate_size=11008,
    vocab_size=32000,
    attention=[Attention(layers=32, heads=32, kv_heads=32, head_dim=128)],
    published_parameters=6_738_415_616,
)
MATRICES = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
ENDS = 2 * 32000 * 4096
NORMS = 65 * 4096


def found(dtype: str, model: ModelFacts = LLAMA, **more: float) -> WeightBytes:
    made = weight_bytes(model, dtype, **more)
    assert isinstance(made, WeightBytes)
    return made


def test_sixteen_bits_cost_two_bytes_a_parameter() -> None:
    assert found("bf16").total == 2 * 6_738_415_616 == 2 * (MATRICES + ENDS + NORMS)


def test_nf4_packs_the_blocks_and_leaves_embedding_head_and_norms_alone() -> None:
    made = found("nf4")
    assert made.blocks == MATRICES / 2
    assert made.constants == MATRICES / 64 * 4
    assert made.kept == 2 * (ENDS + NORMS)


def test_double_quantization_leaves_0_127_bits_of_constants_a_weight_as_in_the_qlora_paper() -> None:
    assert found("nf4-dq").constants * 8 / MATRICES == pytest.approx(0.127, abs=5e-4)


def test_int8_has_one_constant_for_an_output_row() -> None:
    rows = 32 * (4 * 4096 + 2 * 11008 + 4096)
    assert found("int8").constants == rows * 4
    assert found("int8").blocks == MATRICES


def test_a_share_of_the_matrices_can_stay_in_sixteen_bits() -> None:
    assert found("nf4", share_in_16_bits=1.0).total == found("bf16").total
    assert found("nf4").total < found("nf4", share_in_16_bits=0.1).total


def test_routers_are_not_quantized() -> None:
    experts = Experts(routed=8, active=2, intermediate_size=14336, layers=32)
    mixture = LLAMA.model_copy(update={"experts": experts, "intermediate_size": None})
    packed = 32 * (4 * 4096 * 4096 + 8 * 3 * 4096 * 14336)
    assert found("int4", mixture).blocks == packed / 2
    assert found("int4", mixture).kept == 2 * (ENDS + NORMS + 32 * 4096 * 8)


def test_unknown_dimensions_leave_the_published_total_as_a_bound() -> None:
    made = weight_bytes(LLAMA.model_copy(update={"intermediate_size": None}), "nf4")
    assert isinstance(made, Unknown)
    assert made.reason.startswith("unknown: ")
    assert made.low == pytest.approx(6_738_415_616 / 2, rel=0.06)
    assert made.low < found("nf4").total


def test_an_unknown_type_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(InputError, match="did you mean 'nf4'"):
        weight_bytes(LLAMA, "nf5")


def test_every_packing_is_smaller_than_sixteen_bits() -> None:
    for name in PACKINGS:
        assert found(name).total < found("bf16").total
