"""Speed of fine-tunes: FLOPs by hand, what must hold of all of them, and what is unknown."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.catalog.catalog import load
from orchestrator.catalog.parameters import Parameters, parameters
from orchestrator.errors import InputError
from orchestrator.planner.estimate import Estimate, Unknown
from orchestrator.planner.training.constants import SPEED
from orchestrator.planner.training.finetune import FineTune, Sharding
from orchestrator.planner.training.speed import peaks, speed, wall_time, work

CATALOG = load()
LLAMA, H100, A100 = CATALOG.model("Llama-2-7b-hf"), CATALOG.gpu("H100"), CATALOG.gpu("A100-80GB")
MIXTURE = CATALOG.model("Qwen/Qwen3-30B-A3B")
LARGE = FineTune(method="full", micro_batch_size=4, sequence_len=4096, packing=True, checkpointing="none")


def rate(tune: FineTune, model: object = LLAMA, gpu: object = A100) -> float:
    found = speed(model, tune, gpu)  # type: ignore[arg-type]
    assert isinstance(found, Estimate)
    return found.value


def seconds(tune: FineTune, name: str, model: object = LLAMA, gpu: object = A100) -> float:
    found = speed(model, tune, gpu)  # type: ignore[arg-type]
    assert isinstance(found, Estimate)
    return next((term.amount for term in found.terms if term.name == name), 0)


def test_a_token_costs_two_flops_a_matrix_weight_and_a_pass() -> None:
    counted = parameters(LLAMA)
    assert isinstance(counted, Parameters)
    found = work(LLAMA, LARGE, counted)
    assert found.products == 2 * 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    assert found.head == 2 * 32000 * 4096
    assert found.attention == 32 * 2 * (4096 + 4096) * 4096 / 2  # q k and p v, over half of 4096 tokens


def test_a_mixture_computes_its_active_experts_alone() -> None:
    counted = parameters(MIXTURE)
    assert isinstance(counted, Parameters)
    assert work(MIXTURE, LARGE, counted).experts == 2 * counted.experts * 8 / 128


def test_full_fine_tuning_on_an_a100_is_near_what_is_known_of_it() -> None:
    """6 P D at 45-60 % of the peak: large batches of a 7B model, no checkpointing."""
    assert 0.45 < rate(LARGE) * 6 * 6.6e9 / 312e12 < 0.65


def test_a_frozen_weight_saves_a_third_of_the_products() -> None:
    frozen = LARGE.model_copy(update={"method": "lora"})
    assert seconds(frozen, "matrix products") == pytest.approx(seconds(LARGE, "matrix products") * 2 / 3)


def test_checkpointing_costs_another_forward_pass() -> None:
    again = LARGE.model_copy(update={"checkpointing": "full"})
    assert seconds(again, "matrix products") == pytest.approx(seconds(LARGE, "matrix products") * 4 / 3)
    assert rate(again) < rate(LARGE)


def test_short_micro_batches_wait_for_python() -> None:
    short = LARGE.model_copy(update={"micro_batch_size": 1, "sequence_len": 64, "method": "lora"})
    assert seconds(short, "waiting for Python", gpu=H100) > seconds(short, "matrix products", gpu=H100)


def test_packed_weights_cost_time_to_unpack() -> None:
    packed = LARGE.model_copy(update={"method": "qlora"})
    plain = LARGE.model_copy(update={"method": "lora", "adapter_dtype": "bf16"})
    assert rate(packed) < rate(plain)


def test_a_500_w_h100_is_slower_than_a_700_w_one() -> None:
    limited = H100.model_copy(update={"tdp_watts": 500.0})
    assert 0.7 < rate(LARGE, gpu=limited) / rate(LARGE, gpu=H100) < 1


def test_fp8_is_faster_where_there_is_fp8_and_as_fast_where_there_is_none() -> None:
    quantized = LARGE.model_copy(update={"compute": "fp8"})
    assert rate(quantized, gpu=H100) > rate(LARGE, gpu=H100)
    assert peaks(A100, quantized) == (312e12, 312e12)


def test_pipelines_wait_at_the_ends_of_a_step() -> None:
    staged = LARGE.model_copy(
        update={"sharding": Sharding(strategy="none", pipeline=4), "gradient_accumulation_steps": 8}
    )
    longer = staged.model_copy(update={"gradient_accumulation_steps": 64})
    assert seconds(staged, "pipeline bubble") > seconds(longer, "pipeline bubble") > 0


def test_wall_time_is_the_tokens_over_the_rate_and_a_start() -> None:
    found = wall_time(LLAMA, LARGE, A100, 1e9)
    assert isinstance(found, Estimate)
    assert found.unit == "s"
    assert sum(term.amount for term in found.terms) == pytest.approx(found.value)
    assert found.value == pytest.approx(1e9 / rate(LARGE) + 60 + 13.48, rel=1e-3)
    assert found.low < found.value < found.high


def test_unknown_dimensions_and_unknown_peaks_are_unknown() -> None:
    lacking = speed(LLAMA.model_copy(update={"intermediate_size": None}), LARGE, A100)
    assert isinstance(lacking, Unknown)
    assert lacking.reason.startswith("unknown: ")
    assert isinstance(speed(LLAMA, LARGE, A100.model_copy(update={"flops": {}})), Unknown)
    assert isinstance(wall_time(LLAMA, LARGE, A100.model_copy(update={"bandwidth": None}), 1e6), Unknown)


def test_impossible_sharding_is_refused() -> None:
    with pytest.raises(InputError):
        speed(LLAMA, LARGE.model_copy(update={"sharding": Sharding(tensor=7)}), A100)


tunes = st.builds(
    FineTune,
    method=st.sampled_from(["full", "lora", "qlora", "dora"]),
    lora_r=st.integers(1, 64),
    micro_batch_size=st.integers(1, 16),
    sequence_len=st.integers(16, 8192),
    packing=st.just(True),
    checkpointing=st.sampled_from(["none", "selective", "full", "offloaded"]),
    attention=st.sampled_from(["flash", "sdpa", "eager"]),
    kernels=st.sampled_from(["eager", "fused"]),
    offload=st.sampled_from(["none", "optimizer", "all"]),
)


@settings(max_examples=100, deadline=None)
@given(tunes, st.sampled_from([LLAMA, MIXTURE]), st.sampled_from(CATALOG.gpus), st.sampled_from([2, 4, 8]))
def test_more_gpus_train_more_tokens_a_second_but_not_more_than_their_share(
    tune: FineTune, model: object, gpu: object, data: int
) -> None:
    spread = tune.model_copy(update={"sharding": Sharding(strategy="fsdp2", data=data)})
    one, all_ = speed(model, tune, gpu), speed(model, spread, gpu)  # type: ignore[arg-type]
    if isinstance(one, Unknown):
        assert isinstance(all_, Unknown)
        return
    assert isinstance(all_, Estimate)
    assert 0 < all_.low < all_.value < all_.high
    assert sum(term.amount for term in all_.terms) * all_.value == pytest.approx(
        data * tune.micro_batch_size * tune.sequence_len
    )


@settings(max_examples=100, deadline=None)
@given(tunes, st.sampled_from(CATALOG.gpus), st.floats(1.1, 4))
def test_a_faster_gpu_is_never_slower(tune: FineTune, gpu: object, factor: float) -> None:
    found = speed(LLAMA, tune, gpu)  # type: ignore[arg-type]
    if isinstance(found, Unknown):
        return
    faster = gpu.model_copy(  # type: ignore[attr-defined]
        update={"bandwidth": gpu.bandwidth * factor, "pcie_bandwidth": (gpu.pcie_bandwidth or 32e9) * factor}  # type: ignore[attr-defined]
    )
    assert rate(tune, gpu=faster) >= found.value * (1 - 1e-9)


def test_shipped_constants_are_shares() -> None:
    for name in ("products", "quantized_products", "expert_products", "attention", "bandwidth", "links", "overlap"):
        assert 0 < getattr(SPEED, name) <= 1
