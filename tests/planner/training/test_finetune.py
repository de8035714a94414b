"""What a fine-tune can be: targets, and what is refused."""

import pytest

from orchestrator.catalog.models import Attention, Experts, ModelFacts
from orchestrator.errors import InputError
from orchestrator.planner.training.finetune import FineTune, Sharding, check, targets
from orchestrator.planner.training.optimizers import optimizer

MODEL = ModelFacts(
    id="eight-heads",
    layers=4,
    hidden_size=512,
    intermediate_size=1024,
    vocab_size=1000,
    attention=[Attention(layers=4, heads=8, kv_heads=2, head_dim=64)],
)
MIXTURE = MODEL.model_copy(update={"experts": Experts(routed=6, active=2, intermediate_size=256, layers=4)})


def named(modules: str | list[str], model: ModelFacts = MODEL) -> set[str]:
    return {matrix.name for matrix in targets(model, FineTune(target_modules=modules))}


def test_words_lists_and_patterns_choose_modules_as_peft_does() -> None:
    linear = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert named("all-linear") == linear
    assert named("attention") == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert named("mlp") == {"gate_proj", "up_proj", "down_proj"}
    assert named(["q_proj", "self_attn.v_proj"]) == {"q_proj", "v_proj"}
    assert named(r".*self_attn\.(q|k)_proj") == {"q_proj", "k_proj"}
    assert named([]) == set()


def test_all_linear_leaves_routed_experts_alone() -> None:
    assert named("all-linear", MIXTURE) == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_a_module_that_no_layer_has_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="did you mean 'q_proj'"):
        named(["q_prj"])
    with pytest.raises(InputError, match="not a regular expression"):
        named("(")


def test_heads_that_do_not_divide_are_refused_and_valid_degrees_are_named() -> None:
    with pytest.raises(InputError, match="8 heads of eight-heads cannot be divided over 3") as refused:
        check(MODEL, FineTune(sharding=Sharding(tensor=3)))
    assert "1, 2, 4, 8" in str(refused.value)


def test_key_value_heads_are_repeated_when_there_are_more_gpus() -> None:
    check(MODEL, FineTune(sharding=Sharding(tensor=4)))


def test_more_stages_than_layers_are_refused() -> None:
    with pytest.raises(InputError, match="4 layers, fewer than 8 stages"):
        check(MODEL, FineTune(sharding=Sharding(pipeline=8)))


def test_many_gpus_need_a_strategy() -> None:
    with pytest.raises(InputError, match="data is 4, but the strategy is none"):
        check(MODEL, FineTune(sharding=Sharding(data=4)))


def test_experts_must_divide_over_their_group() -> None:
    with pytest.raises(InputError, match="set expert to one of 1, 2"):
        check(MIXTURE, FineTune(sharding=Sharding(strategy="ddp", data=4, expert=4)))
    with pytest.raises(InputError, match="no experts"):
        check(MODEL, FineTune(sharding=Sharding(strategy="ddp", data=4, expert=4)))


def test_quantized_weights_cannot_be_trained_in_full_and_qlora_needs_them() -> None:
    with pytest.raises(InputError, match="cannot be trained in full"):
        check(MODEL, FineTune(method="full", weights_dtype="nf4"))
    with pytest.raises(InputError, match="qlora needs a quantized base"):
        check(MODEL, FineTune(method="qlora", weights_dtype="bf16"))


def test_an_unknown_optimizer_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="did you mean 'adamw_8bit'"):
        check(MODEL, FineTune(optimizer="adamw_8bits"))


def test_optimizers_go_by_several_names() -> None:
    assert optimizer("AdamW") == optimizer("adamw_torch")
    assert optimizer("adamw-8bit") == optimizer("adamw_bnb_8bit")


def test_rows_that_are_known_to_be_short_count_as_short_unless_they_are_packed() -> None:
    short = FineTune(micro_batch_size=2, sequence_len=4096, longest_row=500)
    assert short.tokens == 1000
    assert short.model_copy(update={"packing": True}).tokens == 8192
    assert FineTune(sequence_len=4096, sharding=Sharding(context=4)).tokens == 1024
