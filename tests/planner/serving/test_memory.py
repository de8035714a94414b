import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from orchestrator.catalog.catalog import load
from orchestrator.catalog.kv_cache import kv_bytes
from orchestrator.errors import InputError
from orchestrator.planner.estimate import Unknown
from orchestrator.planner.serving.memory import memory, sequence_bytes
from orchestrator.planner.serving.serving import Serving
from orchestrator.planner.serving.tensor_parallel import degrees

GIB = 2**30
CATALOG = load()
LLAMA, R1 = CATALOG.model("meta-llama/Llama-3.1-8B"), CATALOG.model("deepseek-ai/DeepSeek-R1")
H100, RTX = CATALOG.gpu("H100"), CATALOG.gpu("RTX-4090")
MODELS = [
    CATALOG.model(name)
    for name in (
        "meta-llama/Llama-3.1-8B",
        "deepseek-ai/DeepSeek-R1",
        "Qwen/Qwen3.5-35B-A3B",
        "openai/gpt-oss-20b",
        "meta-llama/Llama-4-Scout-17B-16E-Instruct",
        "XiaomiMiMo/MiMo-V2-Flash",
        "google/gemma-3-27b-pt",
    )
]
READ = {
    "vllm": ["bf16", "fp8", "awq", "nvfp4"],
    "sglang": ["bf16", "fp8", "awq"],
    "tensorrt_llm": ["bf16", "fp8", "awq"],
    "llama_cpp": ["Q4_K_M", "Q8_0", "F16"],
    "transformers": ["bf16", "nf4"],
}
targets = st.builds(
    lambda kind, batch: Serving(engine=kind[0], quantization=kind[1], max_num_seqs=batch),
    st.sampled_from([(engine, name) for engine, names in READ.items() for name in names]),
    st.integers(1, 64),
)


def term(fit, name):
    return next(found.amount for found in fit.terms if found.name == name)


def test_the_terms_add_up_to_what_is_needed_of_the_gpu():
    fit = memory(LLAMA, Serving(), H100, context=8192)
    assert sum(found.amount for found in fit.terms) == pytest.approx(fit.needed)
    assert term(fit, "weights") == pytest.approx(8_030_261_248 * 2)
    assert term(fit, "kv cache") == 8192 * 131072
    assert fit.available == pytest.approx(H100.memory_visible * 0.92)
    assert fit.margin == pytest.approx(fit.available - fit.needed)


def test_the_pool_is_close_to_what_vllm_logs_for_this_model():
    # vLLM pull request 10511: Llama-3-8B, 0.90 of 79.22 GiB, 256 sequences, 8192 tokens: 53.29 GiB for the cache
    served = Serving(gpu_memory_utilization=0.9, max_num_seqs=256, max_num_batched_tokens=8192, cuda_graphs=False)
    assert memory(LLAMA, served, H100, context=8192).kv_pool / GIB == pytest.approx(53.29, rel=0.03)


def test_a_refusal_says_what_is_needed_and_what_is_there():
    fit = memory(CATALOG.model("meta-llama/Llama-3.1-70B"), Serving(), H100, context=8192)
    assert not fit.fits
    assert fit.margin < 0
    assert fit.kv_tokens == fit.concurrent == fit.longest == 0
    assert fit.reason.startswith("does not fit: needs 13")
    assert "of 79.1 GiB visible" in fit.reason


def test_latent_attention_is_not_divided_by_tensor_parallelism():
    one, eight = (sequence_bytes(R1, Serving(tensor=degree), 1000) for degree in (1, 8))
    assert one == eight == 1000 * 70272


def test_grouped_heads_are_divided_down_to_one_and_then_copied():
    qwen = CATALOG.model("Qwen/Qwen3.5-397B-A17B")  # two KV heads
    each = [kv_bytes(qwen, 1, tensor=degree) for degree in (1, 2, 4)]
    assert each == [30720, 15360, 15360]


def test_an_engine_without_window_aware_cache_keeps_everything():
    gemma = CATALOG.model("google/gemma-3-27b-pt")
    aware, blind = (sequence_bytes(gemma, Serving(engine=name), 100_000) for name in ("vllm", "transformers"))
    assert blind > 4 * aware


def test_a_linear_layer_s_state_counts_once_per_sequence():
    qwen = CATALOG.model("Qwen/Qwen3.5-27B")
    assert sequence_bytes(qwen, Serving(), 1) == 65536 + 150_994_944 + 3_932_160


def test_llama_cpp_allocates_the_context_of_every_slot_at_once():
    one = memory(LLAMA, Serving(engine="llama_cpp", quantization="Q4_K_M", max_num_seqs=1), RTX, context=8192)
    eight = memory(LLAMA, Serving(engine="llama_cpp", quantization="Q4_K_M", max_num_seqs=8), RTX, context=8192)
    assert term(eight, "kv cache") == 8 * term(one, "kv cache")
    assert eight.concurrent == 8


def test_tensorrt_llm_takes_its_share_of_what_is_free():
    fit = memory(LLAMA, Serving(engine="tensorrt_llm"), H100, context=8192)
    fixed = sum(found.amount for found in fit.terms if found.name != "kv cache")
    assert fit.kv_pool == pytest.approx((H100.memory_visible - fixed) * 0.9)


def test_a_draft_and_adapters_are_counted():
    draft = CATALOG.model("meta-llama/Llama-3.2-1B")
    plain = memory(LLAMA, Serving(), H100, context=8192)
    full = memory(LLAMA, Serving(draft=draft, lora_slots=4, lora_rank=16), H100, context=8192)
    assert term(full, "draft") == pytest.approx(1_235_814_400 * 2)
    width = 32 * (4096 + 6144 + 4096 + 4096 + 2 * (4096 + 14336) + 14336 + 4096 + 2 * 4096)
    assert term(full, "adapters") == 4 * 16 * width * 2
    assert term(full, "kv cache") > term(plain, "kv cache")


def test_the_longest_context_is_the_last_that_fits():
    served = Serving(quantization="fp8")
    longest = memory(LLAMA, served, RTX, context=4096).longest
    assert memory(LLAMA, served, RTX, context=longest).fits
    assert longest == 131072 or not memory(LLAMA, served, RTX, context=longest + 1).fits


def test_heads_that_do_not_divide_are_refused_with_what_would():
    with pytest.raises(InputError, match="32 attention heads of meta-llama") as refused:
        memory(LLAMA, Serving(tensor=3), H100)
    assert "1, 2, 4, 8, 16" in refused.value.next_step


def test_a_model_without_dimensions_is_unknown():
    found = memory(CATALOG.model("Qwen/Qwen3.5-9B"), Serving(), H100)
    assert isinstance(found, Unknown)
    assert found.reason.startswith("unknown: ")
    assert found.low < found.high


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(MODELS), targets, st.integers(1, 200_000), st.integers(1, 200_000))
def test_more_context_never_needs_less(model, served, one, other):
    short, long = (memory(model, served, H100, context=tokens) for tokens in sorted((one, other)))
    assert short.needed <= long.needed


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(MODELS), targets, st.integers(1, 50), st.integers(1, 50))
def test_more_sequences_never_need_less(model, served, one, other):
    few, many = (memory(model, served, H100, context=2048, held=held) for held in sorted((one, other)))
    assert few.needed <= many.needed


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(MODELS), targets, st.integers(0, 8), st.integers(0, 8))
def test_more_adapters_never_need_less(model, served, one, other):
    few, many = (
        memory(model, served.model_copy(update={"lora_slots": slots}), H100, context=2048)
        for slots in sorted((one, other))
    )
    assert few.needed <= many.needed


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(MODELS), targets, st.sampled_from([1, 2, 4]), st.integers(1, 100_000))
def test_sharing_a_model_never_needs_more_weights_or_cache_on_each_gpu(model, served, degree, tokens):
    assume(2 * degree in degrees(model, served.format))
    alone, shared = (served.model_copy(update={"tensor": number}) for number in (degree, 2 * degree))
    first, second = (memory(model, one, H100, context=tokens) for one in (alone, shared))
    assert term(second, "weights") <= term(first, "weights")
    assert term(second, "kv cache") <= term(first, "kv cache")
    assert term(second, "activations") <= term(first, "activations")
