import pytest

from orchestrator.catalog.catalog import load
from orchestrator.errors import InputError
from orchestrator.planner.serving.formats import compute_type, formats, weight_format, weight_parts

GIB = 2**30
# llama.cpp's tools/quantize/README.md: bits per weight of Llama-3.1-8B
PUBLISHED_BITS = {
    "IQ1_S": 2.00,
    "IQ1_M": 2.15,
    "IQ2_XXS": 2.38,
    "IQ2_XS": 2.59,
    "IQ2_S": 2.74,
    "IQ2_M": 2.93,
    "IQ3_XXS": 3.25,
    "IQ3_XS": 3.50,
    "IQ3_S": 3.66,
    "IQ3_M": 3.76,
    "IQ4_XS": 4.46,
    "IQ4_NL": 4.68,
    "Q2_K_S": 2.97,
    "Q2_K": 3.16,
    "Q3_K_S": 3.64,
    "Q3_K_M": 4.00,
    "Q3_K_L": 4.30,
    "Q4_K_S": 4.67,
    "Q4_K_M": 4.89,
    "Q5_K_S": 5.57,
    "Q5_K_M": 5.70,
    "Q6_K": 6.56,
    "Q8_0": 8.50,
    "F16": 16.0,
}


def total(model: str, quantization: str) -> float:
    found = weight_parts(load().model(model), weight_format(quantization))
    assert isinstance(found, dict)
    return sum(found.values())


@pytest.mark.parametrize(("name", "bits"), PUBLISHED_BITS.items())
def test_a_gguf_file_has_the_published_bits_per_weight(name, bits):
    assert total("meta-llama/Llama-3.1-8B", name) * 8 / 8.03e9 == pytest.approx(bits, rel=0.015)


def test_a_405b_fp8_checkpoint_that_keeps_attention_in_16_bits_is_462_gib():
    assert total("meta-llama/Llama-3.1-405B", "fbgemm_fp8") / GIB == pytest.approx(462, rel=0.04)


def test_embedding_and_head_stay_in_16_bits_in_a_hub_checkpoint():
    found = weight_parts(load().model("meta-llama/Llama-3.1-8B"), weight_format("fp8"))
    assert found["embedding"] == found["head"] == 128256 * 4096 * 2
    assert found["ffn"] == 32 * 3 * 4096 * 14336


def test_mxfp4_of_a_mixture_is_its_experts_alone():
    found = weight_parts(load().model("openai/gpt-oss-20b"), weight_format("mxfp4"))
    assert sum(found.values()) == pytest.approx(13.76e9, rel=0.02)  # the files on the hub


@pytest.mark.parametrize(
    ("word", "name"), [("AWQ", "w4a16"), ("Q4_K_M", "q4_k_m"), ("w8a8", "int8"), ("FP4", "nvfp4"), ("auto", "bf16")]
)
def test_the_field_s_words_are_understood(word, name):
    assert weight_format(word).name == name


def test_an_unknown_word_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'q4_k_m'"):
        weight_format("q4_km")


def test_a_gpu_without_the_unit_computes_in_16_bits():
    catalog = load()
    assert compute_type(weight_format("fp8"), catalog.gpu("H100").flops) == "fp8"
    assert compute_type(weight_format("fp8"), catalog.gpu("A100-80GB").flops) == "bf16"
    assert compute_type(weight_format("mxfp4"), catalog.gpu("H100").flops) == "bf16"
    assert compute_type(weight_format("mxfp4"), catalog.gpu("B200").flops) == "fp8"
    assert compute_type(weight_format("fp32"), catalog.gpu("MI355X").flops) is None


def test_every_format_stays_between_its_parts():
    for found in formats().values():
        assert 1 <= found.bits <= 32


def test_a_model_without_dimensions_is_unknown_with_certain_bounds():
    found = weight_parts(load().model("Qwen/Qwen3.5-9B"), weight_format("Q4_K_M"))
    assert found.reason.startswith("unknown: ")
    assert 4e9 < found.low < found.high < 19e9
