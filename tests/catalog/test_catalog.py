"""The shipped catalog: its counts agree with what was published, and names are found as people write them."""

from pathlib import Path

import pytest

from orchestrator.catalog.catalog import load
from orchestrator.catalog.models import ModelFacts
from orchestrator.catalog.parameters import Parameters, linear_layers, parameters
from orchestrator.catalog.unknown import Unknown
from orchestrator.errors import InputError

HERE = Path(__file__).parent
CATALOG = load(directory=HERE)
COUNTED = [model for model in CATALOG.models if isinstance(parameters(model), Parameters)]


def _id(model: ModelFacts) -> str:
    return model.id


def count(model: ModelFacts) -> Parameters:
    found = parameters(model)
    assert isinstance(found, Parameters)
    return found


def rounding(published: int) -> float:
    """Half of the last digit that was published: 397B may stand for 396.5 to 397.5."""
    digits = str(published).rstrip("0")
    return 0.5 * 10 ** (len(str(published)) - len(digits))


@pytest.mark.parametrize("model", COUNTED, ids=_id)
def test_parameters_counted_from_the_dimensions_are_the_published_total(model: ModelFacts) -> None:
    if model.published_parameters is None:
        return
    allowed = max(0.01 * model.published_parameters, rounding(model.published_parameters))
    assert abs(count(model).total - model.published_parameters) <= allowed


@pytest.mark.parametrize("model", COUNTED, ids=_id)
def test_parts_add_up_and_layers_are_complete(model: ModelFacts) -> None:
    found = count(model)
    named = ("embedding", "head", "attention", "ffn", "experts", "shared_experts", "router", "norms", "other", "vision")
    assert found.total == sum(getattr(found, name) for name in named)
    mixers = sum(attention.layers for attention in model.attention)
    assert model.layers == (mixers if model.ffn_layers is None else mixers + model.ffn_layers)
    assert found.active <= found.total
    matrices = sum(matrix.parameters for matrix in linear_layers(model))
    assert matrices == found.attention + found.ffn + found.experts + found.shared_experts + found.router


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("meta-llama/Llama-3.1-8B", 8_030_261_248),
        ("meta-llama/Llama-3.2-3B", 3_212_749_824),
        ("meta-llama/Llama-2-7b-hf", 6_738_415_616),
        ("mistralai/Mistral-7B-v0.1", 7_241_732_096),
        ("Qwen/Qwen2.5-7B", 7_615_616_512),
        ("Qwen/Qwen3-8B", 8_190_735_360),
        ("Qwen/Qwen3-30B-A3B", 30_532_122_624),
        ("openai/gpt-oss-20b", 20_914_757_184),
        ("openai/gpt-oss-120b", 116_829_156_672),
        ("google/gemma-2-9b", 9_241_705_984),
        ("microsoft/phi-1_5", 1_418_270_720),
        ("microsoft/phi-4", 14_659_507_200),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", 1_100_048_384),
        ("mistralai/Mixtral-8x7B-v0.1", 46_702_792_704),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", 108_641_793_536),
        ("google/gemma-3-4b-pt", 4_300_079_472),
        ("google/gemma-3-27b-pt", 27_432_406_640),
    ],
)
def test_the_count_is_exact_where_the_checkpoint_s_own_count_is_known(name: str, exact: int) -> None:
    assert count(CATALOG.model(name)).total == exact


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("Qwen/Qwen3.5-397B-A17B", 17),
        ("Qwen/Qwen3.5-122B-A10B", 10),
        ("deepseek-ai/DeepSeek-R1", 37),
        ("moonshotai/Kimi-K2-Instruct", 32),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", 17),
        ("XiaomiMiMo/MiMo-V2-Flash", 15),
    ],
)
def test_active_parameters_are_about_those_published(name: str, billions: float) -> None:
    assert count(CATALOG.model(name)).active == pytest.approx(billions * 1e9, rel=0.035)


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("Qwen/Qwen3.5-397B-A17B", 396.346),
        ("Qwen/Qwen3.5-122B-A10B", 122.112),
        ("Qwen/Qwen3.5-35B-A3B", 34.661),
        ("Qwen/Qwen3.5-27B", 26.896),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", 107.769),
        ("meta-llama/Llama-4-Maverick-17B-128E-Instruct", 400.711),
        ("deepseek-ai/DeepSeek-R1", 671.026),
        ("deepseek-ai/DeepSeek-V3.2", 671.878),
        ("zai-org/GLM-5", 743.911),
        ("moonshotai/Kimi-K2-Instruct", 1026.408),
        ("moonshotai/Kimi-K2.5", 1026.408),
        ("XiaomiMiMo/MiMo-V2-Flash", 308.778),
        ("XiaomiMiMo/MiMo-7B-Base", 7.623),
        ("meta-llama/Llama-3.1-8B", 8.03),
        ("meta-llama/Llama-3.1-70B", 70.554),
        ("meta-llama/Llama-3.3-70B-Instruct", 70.554),
        ("meta-llama/Llama-3.1-405B", 405.853),
        ("meta-llama/Llama-3.2-3B", 3.213),
        ("meta-llama/Llama-2-7b-hf", 6.738),
        ("meta-llama/Llama-2-13b-hf", 13.016),
        ("meta-llama/Llama-2-70b-hf", 68.977),
        ("Qwen/Qwen2.5-7B", 7.616),
        ("Qwen/Qwen2.5-32B", 32.764),
        ("Qwen/Qwen3-8B", 8.191),
        ("Qwen/Qwen3-32B", 32.762),
    ],
)
def test_the_text_model_agrees_with_an_independent_count(name: str, billions: float) -> None:
    found = count(CATALOG.model(name))
    assert found.total - found.vision == pytest.approx(billions * 1e9, abs=1e6)


def test_unknown_dimensions_stay_unknown() -> None:
    found = parameters(CATALOG.model("Qwen/Qwen3.5-9B"))
    assert isinstance(found, Unknown)
    assert found.reason.startswith("unknown: ")
    assert "intermediate_size" in found.reason
    assert found.low == 9_000_000_000


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("LLAMA3_70B", "meta-llama/Meta-Llama-3-70B"),
        ("LLAMA3.1_405B", "meta-llama/Llama-3.1-405B"),
        ("unsloth/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B"),
        ("unsloth/Qwen3-14B-Base-unsloth-bnb-4bit", "Qwen/Qwen3-14B"),
        ("RedHatAI/Meta-Llama-3.1-70B-Instruct-FP8", "meta-llama/Llama-3.1-70B"),
        ("Qwen/Qwen2.5-7B-Instruct-AWQ", "Qwen/Qwen2.5-7B"),
        ("Qwen3_30B_a3B (tokendrop)", "Qwen/Qwen3-30B-A3B"),
        ("GPT OSS 120B", "openai/gpt-oss-120b"),
        ("phi-1.5 (1.3B)", "microsoft/phi-1_5"),
        ("mpt-3b", "mosaicml/mpt-3b"),
        ("gemma-3-4b", "google/gemma-3-4b-pt"),
        ("unsloth/gemma-3-12b-it-unsloth-bnb-4bit", "google/gemma-3-12b-pt"),
        ("Qwen3-Next-80B-A3B", "Qwen/Qwen3-Next-80B-A3B-Instruct"),
        ("Phi-3.5-mini", "microsoft/Phi-3-mini-4k-instruct"),
        ("QwQ-32B", "Qwen/Qwen2.5-32B"),
        ("vicuna-13b-v1.5", "meta-llama/Llama-2-13b-hf"),
        ("databricks/dolly-v2-12b", "EleutherAI/pythia-12b"),
        ("OPT-13B", "facebook/opt-13b"),
        ("CodeLlama-7b-Instruct-hf", "codellama/CodeLlama-7b-hf"),
        ("Yi-34B-Chat", "01-ai/Yi-34B"),
        ("Qwen2-72B-Instruct-AWQ", "Qwen/Qwen2-72B"),
        ("mistral-large-2407", "mistralai/Mistral-Large-Instruct-2407"),
        ("Mistral-Nemo-12B", "mistralai/Mistral-Nemo-Base-2407"),
    ],
)
def test_a_model_is_found_as_people_write_it(written: str, meant: str) -> None:
    assert CATALOG.model(written).id == meant


def test_neighbours_are_not_confused() -> None:
    assert CATALOG.find_model("Llama-3-18B") is None
    assert CATALOG.find_model("someone/Llama-3.1-8B-legal") is None
    assert CATALOG.find_model("Qwen/Qwen3-80B") is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("H100", "h100-sxm"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA A100-SXM4-80GB", "a100-sxm-80"),
        ("NVIDIA A100-SXM4-40GB", "a100-sxm-40"),
        ("A100-80GB", "a100-sxm-80"),
        ("Tesla T4", "t4"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("rtx_4090", "rtx-4090"),
        ("AMD Instinct MI300X", "mi300x"),
        ("DGX-GB200", "gb200-nvl72"),
        ("RTX-4090-24GB", "rtx-4090"),
        ("NVIDIA RTX A6000 48GB", "rtx-a6000"),
        ("8xH100", "h100-sxm"),
        ("2x A100 80GB", "a100-sxm-80"),
        ("H100 94GB", "h100-nvl"),
        ("V100-SXM2-16GB", "v100-16"),
        ("V100 32GB", "v100-32"),
        ("B200 192GB", "b200-sxm"),
        ("RTX PRO 6000 Blackwell", "rtx-pro-6000"),
    ],
)
def test_a_gpu_is_found_as_recipes_and_drivers_write_it(written: str, meant: str) -> None:
    assert CATALOG.gpu(written).id == meant


def test_a_gpu_of_another_memory_is_another_gpu() -> None:
    assert CATALOG.find_gpu("RTX-4090-48GB") is None
    assert CATALOG.find_gpu("A100-120GB") is None


def test_what_is_unknown_names_the_nearest() -> None:
    with pytest.raises(InputError, match="Qwen/Qwen3-8B"):
        CATALOG.model("Qwen/Qwen3-8b-Turbo")
    with pytest.raises(InputError, match="H100"):
        CATALOG.gpu("H10O")
    with pytest.raises(InputError, match=r"apache-2.0"):
        CATALOG.license("apache-3.0")


def test_every_gpu_shows_less_memory_than_it_is_sold_with() -> None:
    for gpu in CATALOG.gpus:
        assert 0.9 * gpu.memory_nominal < gpu.memory_visible < gpu.memory_nominal, gpu.id
        assert gpu.flops, gpu.id
        assert gpu.source
        assert gpu.date


def test_every_price_has_a_source_a_date_and_a_known_gpu() -> None:
    known = {gpu.id for gpu in CATALOG.gpus}
    prices = CATALOG.gpu_prices()
    assert len(prices) > 90
    assert all(price.gpu in known and price.source and price.date and price.usd_per_gpu_hour > 0 for price in prices)
    assert {price.gpu for price in CATALOG.gpu_prices("H100")} == {"h100-sxm"}
    assert CATALOG.gpu_prices("MI355X") == []


def test_api_prices_are_found_by_model_and_by_vendor_and_model() -> None:
    (price,) = CATALOG.api_prices("gpt-4o")
    assert (price.input_usd_per_million, price.output_usd_per_million) == (2.5, 10)
    assert CATALOG.api_prices("openai/gpt-4o") == [price]
    assert all(found.source and found.observed for found in CATALOG.api_prices())


def test_every_model_names_a_source_and_a_licence_of_the_catalog() -> None:
    for model in CATALOG.models:
        assert model.source
        assert model.date
        assert model.license or "licence" in (model.notes or ""), model.id
        for key in filter(None, [model.license, *model.base_licenses]):
            assert CATALOG.find_license(key) is not None, key
