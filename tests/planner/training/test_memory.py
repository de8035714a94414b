"""Memory of a fine-tune: sums by hand, and what must hold of every fine-tune."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.catalog.models import Attention, Experts, ModelFacts
from orchestrator.errors import InputError
from orchestrator.planner.estimate import Estimate, Unknown
from orchestrator.planner.training.activations import activations
from orchestrator.planner.training.finetune import FineTune, Sharding
from orchestrator.planner.training.memory import memory
from orchestrator.planner.training.states import trained_parameters

LLAMA = ModelFacts(
    id="meta-llama/Llama-2-7b-hf",
    layers=32,
    hidden_size=4096,
    intermediate_size=11008,
    vocab_size=32000,
    attention=[Attention(layers=32, heads=32, kv_heads=32, head_dim=128)],
    published_parameters=6_738_415_616,
)
PARAMETERS = 6_738_415_616


def terms(tune: FineTune, model: ModelFacts = LLAMA, **more: Any) -> dict[str, float]:
    found = memory(model, tune, **more)
    assert isinstance(found, Estimate)
    return {term.name: term.amount for term in found.terms}


def value(tune: FineTune, model: ModelFacts = LLAMA, **more: Any) -> float:
    found = memory(model, tune, **more)
    assert isinstance(found, Estimate)
    return found.value


def test_full_fine_tuning_in_bf16_keeps_eight_bytes_a_parameter() -> None:
    found = terms(FineTune(method="full", sequence_len=16, gradient_accumulation_steps=2))
    assert found["weights"] == found["gradients"] == 2 * PARAMETERS
    assert found["optimizer"] == 4 * PARAMETERS


def test_master_weights_and_fp32_states_cost_twelve_bytes_more_than_the_bf16_weights() -> None:
    found = terms(FineTune(method="full", master_weights=True, sequence_len=16))
    assert found["optimizer"] == 12 * PARAMETERS


def test_zero3_divides_all_states() -> None:
    sharding = Sharding(strategy="zero3", data=8)
    found = terms(FineTune(method="full", sequence_len=16, sharding=sharding))
    assert found["weights"] == 2 * PARAMETERS / 8
    assert found["optimizer"] == 4 * PARAMETERS / 8


def test_rank_eight_on_q_and_v_trains_4_194_304_parameters_of_llama_2_7b() -> None:
    tune = FineTune(method="lora", lora_r=8, target_modules=["q_proj", "v_proj"])
    assert trained_parameters(LLAMA, tune) == 4_194_304
    found = terms(tune)
    assert found["adapters"] == 4 * 4_194_304
    assert found["optimizer"] == 8 * 4_194_304


def test_dora_trains_a_magnitude_for_each_output() -> None:
    tune = FineTune(method="dora", lora_r=8, target_modules=["q_proj", "v_proj"])
    assert trained_parameters(LLAMA, tune) == 4_194_304 + 32 * 2 * 4096
    assert value(tune) > value(tune.model_copy(update={"method": "lora"}))


def test_eight_bit_states_cost_two_bytes_and_their_constants() -> None:
    found = terms(FineTune(method="full", optimizer="adamw_8bit", sequence_len=16))
    assert found["optimizer"] == pytest.approx(2 * PARAMETERS * (1 + 4 / 256))


def test_paged_states_need_no_room() -> None:
    assert "optimizer" not in terms(FineTune(method="full", optimizer="paged_adamw_8bit", sequence_len=16))


def test_sgd_has_no_states() -> None:
    assert "optimizer" not in terms(FineTune(method="full", optimizer="sgd", sequence_len=16))


def test_checkpointing_keeps_one_vector_per_layer_and_token() -> None:
    tune = FineTune(method="qlora", sequence_len=1000, micro_batch_size=3, checkpointing="full")
    assert activations(LLAMA, tune).layers == 32 * 3000 * 4096 * 2


def test_a_frozen_layer_keeps_what_its_products_and_norms_need() -> None:
    tune = FineTune(method="lora", target_modules=[], sequence_len=1000, checkpointing="none", attention="flash")
    norms, attended = 2 * 4 * 4096, 2 * 4 * 4096 + 4 * 32  # in fp32; q, k, v, output and a sum per head
    assert activations(LLAMA, tune).layers == 1000 * 32 * (norms + attended + 3 * 2 * 11008)


def test_an_adapter_in_fp32_keeps_a_copy_of_its_input() -> None:
    plain = FineTune(method="lora", target_modules=[], sequence_len=1000, checkpointing="none", autocast=False)
    adapted = plain.model_copy(update={"target_modules": ["q_proj"], "lora_r": 4})
    more = activations(LLAMA, adapted).layers - activations(LLAMA, plain).layers
    assert more == 32 * 1000 * 4 * (4096 + 4)


def test_eager_attention_keeps_six_bytes_for_every_pair_of_tokens_and_head() -> None:
    tune = FineTune(method="lora", sequence_len=2048, checkpointing="none", attention="sdpa")
    eager = tune.model_copy(update={"attention": "eager"})
    assert activations(LLAMA, eager).layers - activations(LLAMA, tune).layers == 32 * 32 * 2048**2 * 6


def test_full_logits_are_held_in_bf16_with_three_fp32_copies() -> None:
    found = activations(LLAMA, FineTune(sequence_len=2048, loss="full"))
    assert found.logits == 2048 * 32000 * 14
    assert found.kept_logits == 2048 * 32000 * 2


def test_chunked_and_fused_losses_hold_less() -> None:
    full, chunked, fused = (
        activations(LLAMA, FineTune(sequence_len=8192, loss=loss)).logits for loss in ("full", "chunked", "fused")
    )
    assert fused < chunked < full


def test_what_pytorch_reports_leaves_out_the_context() -> None:
    tune = FineTune()
    assert value(tune, measure="allocated") < value(tune, measure="reserved") < value(tune, measure="device")


def test_resuming_full_fine_tuning_loads_the_states_beside_those_there() -> None:
    tune = FineTune(method="full", optimizer="adamw_torch_fused", sequence_len=16, checkpointing="full")
    found = terms(tune, resume=True)
    assert found["checkpoint"] == 4 * PARAMETERS + 2 * PARAMETERS
    assert value(tune, resume=True) > value(tune)


def test_an_unsharded_checkpoint_needs_more_on_resuming() -> None:
    tune = FineTune(method="full", sequence_len=16, sharding=Sharding(strategy="fsdp2", data=8))
    whole = tune.model_copy(update={"checkpoint": "full"})
    assert value(whole) == value(tune)
    assert value(whole, resume=True) > value(tune, resume=True)


def test_offloading_takes_states_away() -> None:
    tune = FineTune(method="full", sequence_len=16, sharding=Sharding(strategy="fsdp2", data=8))
    optimizer, all_ = (tune.model_copy(update={"offload": what}) for what in ("optimizer", "all"))
    assert value(all_) < value(optimizer) < value(tune)


def test_a_model_without_its_ffn_width_is_unknown_but_not_less_than_its_weights() -> None:
    found = memory(LLAMA.model_copy(update={"intermediate_size": None}), FineTune(method="lora"))
    assert isinstance(found, Unknown)
    assert found.reason.startswith("unknown: ")
    assert found.low is not None
    assert 0.9 * 2 * PARAMETERS < found.low < 2 * PARAMETERS


def test_impossible_fine_tunes_are_refused() -> None:
    with pytest.raises(InputError, match="32 heads"):
        memory(LLAMA, FineTune(sharding=Sharding(tensor=5)))


@st.composite
def models(draw: st.DrawFn) -> ModelFacts:
    layers, heads = draw(st.integers(1, 6)), 8
    kv_heads, head_dim = draw(st.sampled_from([1, 2, 4, 8])), draw(st.sampled_from([32, 64]))
    kind = draw(st.sampled_from(["full", "sliding", "linear", "mla"]))
    mla = {"q_lora_rank": 64, "kv_lora_rank": 32, "rope_head_dim": 16} if kind == "mla" else {}
    window = {"window": 64} if kind == "sliding" else {}
    attention = Attention(kind=kind, layers=layers, heads=heads, kv_heads=kv_heads, head_dim=head_dim, **mla, **window)
    experts = draw(st.none() | st.just(Experts(routed=8, active=2, intermediate_size=128, layers=layers)))
    return ModelFacts(
        id="drawn",
        layers=layers,
        hidden_size=draw(st.sampled_from([64, 256, 512])),
        intermediate_size=draw(st.sampled_from([128, 1024])),
        gated_ffn=draw(st.booleans()),
        vocab_size=draw(st.sampled_from([256, 5000, 150000])),
        tie_word_embeddings=draw(st.booleans()),
        attention=[attention],
        experts=experts,
    )


@st.composite
def tunes(draw: st.DrawFn) -> FineTune:
    method = draw(st.sampled_from(["full", "lora", "qlora", "dora"]))
    plain = ["bf16", "fp32"]
    dtypes = {"full": plain, "lora": [*plain, "int8"], "qlora": ["nf4", "nf4-dq", "int8"], "dora": [*plain, "nf4"]}
    return FineTune(
        method=method,
        weights_dtype=draw(st.sampled_from(dtypes[method])),
        lora_r=draw(st.integers(1, 64)),
        lora_dropout=draw(st.sampled_from([0, 0.1])),
        train_embeddings=draw(st.booleans()),
        autocast=draw(st.booleans()),
        master_weights=draw(st.booleans()),
        micro_batch_size=draw(st.integers(1, 8)),
        sequence_len=draw(st.integers(1, 4096)),
        gradient_accumulation_steps=draw(st.sampled_from([1, 4])),
        checkpointing=draw(st.sampled_from(["none", "selective", "full", "offloaded"])),
        attention=draw(st.sampled_from(["flash", "sdpa", "eager"])),
        kernels=draw(st.sampled_from(["eager", "fused"])),
        loss=draw(st.sampled_from(["full", "chunked", "fused"])),
        optimizer=draw(st.sampled_from(["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "sgd"])),
        gradient_release=draw(st.booleans()),
        offload=draw(st.sampled_from(["none", "optimizer", "all"])),
        sharding=Sharding(strategy=draw(st.sampled_from(["none", "fsdp2", "zero1", "zero2", "zero3"]))),
    )


SLACK = 1 + 1e-9
resumes = st.booleans()


@settings(max_examples=150, deadline=None)
@given(models(), tunes(), resumes, st.sampled_from(["lora_r", "micro_batch_size", "sequence_len"]), st.integers(1, 500))
def test_more_rank_rows_or_tokens_never_need_less(
    model: ModelFacts, tune: FineTune, resume: bool, field: str, more: int
) -> None:
    larger = tune.model_copy(update={field: getattr(tune, field) + more})
    assert value(larger, model, resume=resume) * SLACK >= value(tune, model, resume=resume)


@settings(max_examples=150, deadline=None)
@given(
    models(), tunes(), resumes, st.sampled_from(["data", "tensor", "context", "pipeline"]), st.sampled_from([2, 4, 8])
)
def test_sharding_never_needs_more_on_a_gpu(
    model: ModelFacts, tune: FineTune, resume: bool, dimension: str, degree: int
) -> None:
    if dimension == "pipeline":
        degree = min(degree, model.layers or 1)
    strategy = "fsdp2" if tune.sharding.strategy == "none" and dimension == "data" else tune.sharding.strategy
    sharding = tune.sharding.model_copy(update={dimension: degree, "strategy": strategy})
    spread = tune.model_copy(update={"sharding": sharding})
    assert value(spread, model, resume=resume) <= value(tune, model, resume=resume) * SLACK


@settings(max_examples=100, deadline=None)
@given(models(), tunes(), st.sampled_from([1, 2, 8]))
def test_resuming_never_needs_less_than_the_first_start(model: ModelFacts, tune: FineTune, data: int) -> None:
    strategy = "fsdp2" if data > 1 and tune.sharding.strategy == "none" else tune.sharding.strategy
    spread = tune.model_copy(update={"sharding": Sharding(strategy=strategy, data=data)})
    assert value(spread, model, resume=True) >= value(spread, model)


@settings(max_examples=100, deadline=None)
@given(models(), tunes(), resumes, st.sampled_from(["device", "reserved", "allocated"]))
def test_terms_add_up_and_lie_in_the_interval(model: ModelFacts, tune: FineTune, resume: bool, measure: str) -> None:
    found = memory(model, tune, resume=resume, measure=measure)  # type: ignore[arg-type]
    assert isinstance(found, Estimate)
    assert sum(term.amount for term in found.terms) == pytest.approx(found.value)
    assert found.low <= found.value <= found.high
    assert all(term.because for term in found.terms)


@settings(max_examples=100, deadline=None)
@given(models(), tunes())
def test_stronger_checkpointing_never_needs_more(model: ModelFacts, tune: FineTune) -> None:
    kept = [
        activations(model, tune.model_copy(update={"checkpointing": how})).layers
        for how in ("none", "selective", "full")
    ]
    assert kept == sorted(kept, reverse=True)


def test_the_interval_is_wider_for_what_was_not_verified_or_hardly_measured() -> None:
    def width(model: ModelFacts) -> float:
        found = memory(model, FineTune(sequence_len=8192, loss="full"))
        assert isinstance(found, Estimate)
        return found.high / found.value

    verified = LLAMA.model_copy(update={"verified": True})
    experts = Experts(routed=8, active=2, intermediate_size=4096, layers=32)
    assert width(verified) < width(LLAMA) < width(LLAMA.model_copy(update={"experts": experts}))
