"""What is proposed when a fine-tune does not fit."""

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.catalog.catalog import load
from orchestrator.planner.estimate import Estimate
from orchestrator.planner.training.finetune import FineTune
from orchestrator.planner.training.memory import memory
from orchestrator.planner.training.remedies import describe, smallest_change

CATALOG = load()
LLAMA, LARGE = CATALOG.model("Llama-3.1-8B"), CATALOG.model("Llama-3.1-70B")
RTX, H100 = CATALOG.gpu("RTX-4090"), CATALOG.gpu("H100")


def needed(model: object, tune: FineTune, gpu: object) -> float:
    found = memory(model, tune, gpu)  # type: ignore[arg-type]
    assert isinstance(found, Estimate)
    return found.value


def test_nothing_is_proposed_for_what_fits_or_is_unknown() -> None:
    assert smallest_change(LLAMA, FineTune(method="qlora"), RTX) == []
    unknown = LLAMA.model_copy(update={"intermediate_size": None})
    assert smallest_change(unknown, FineTune(method="full"), RTX) == []


def test_what_leaves_the_result_alone_comes_first() -> None:
    tune = FineTune(method="lora", micro_batch_size=4, sequence_len=2048, checkpointing="none")
    first, *_ = smallest_change(LLAMA, tune, RTX)
    assert first.text == "checkpointing none -> full"
    assert first.tune.checkpointing == "full"
    assert first.needed <= RTX.memory_visible < needed(LLAMA, tune, RTX)


def test_a_smaller_micro_batch_keeps_the_rows_of_a_step() -> None:
    tune = FineTune(
        method="lora", micro_batch_size=32, sequence_len=4096, checkpointing="full", gradient_accumulation_steps=2
    )
    remedy = next(one for one in smallest_change(LLAMA, tune, RTX) if one.text.startswith("micro_batch_size"))
    assert remedy.tune.micro_batch_size * remedy.tune.gradient_accumulation_steps == 64


def test_a_model_that_is_too_large_in_sixteen_bits_is_quantized_or_spread() -> None:
    found = smallest_change(LARGE, FineTune(method="lora"), H100)
    assert [one.text for one in found] == [
        "method lora -> qlora, weights_dtype default -> nf4-dq",
        "GPUs 1 -> 2 (fsdp2)",
    ]
    lines = describe(found)
    assert lines[0].startswith("set method lora -> qlora, weights_dtype default -> nf4-dq: needs ")
    assert lines[1].endswith(" on 2 GPUs")


def test_several_changes_are_combined_where_none_suffices_and_needless_ones_left_out() -> None:
    found = smallest_change(LARGE, FineTune(method="full"), RTX)
    assert len(found) == 1
    assert "qlora" in found[0].text
    assert found[0].gpus == 8
    assert "optimizer" not in found[0].text


tunes = st.builds(
    FineTune,
    method=st.sampled_from(["full", "lora", "qlora"]),
    micro_batch_size=st.integers(1, 32),
    sequence_len=st.integers(256, 16384),
    checkpointing=st.sampled_from(["none", "selective", "full"]),
    attention=st.sampled_from(["flash", "sdpa", "eager"]),
    loss=st.sampled_from(["full", "chunked", "fused"]),
)


@settings(max_examples=60, deadline=None)
@given(tunes, st.sampled_from([LLAMA, LARGE]), st.sampled_from([RTX, H100]))
def test_what_is_proposed_fits_and_needs_less(tune: FineTune, model: object, gpu: object) -> None:
    before = needed(model, tune, gpu)
    for remedy in smallest_change(model, tune, gpu):  # type: ignore[arg-type]
        assert remedy.needed == needed(model, remedy.tune, gpu)
        assert remedy.needed <= gpu.memory_visible < before  # type: ignore[attr-defined]
