"""A model's own config.json: what is read from it, and that one which lies is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.catalog.catalog import load
from orchestrator.catalog.config_json import from_config, from_folder
from orchestrator.catalog.kv_cache import bytes_per_token, state_bytes_per_sequence
from orchestrator.catalog.parameters import Parameters, parameters
from orchestrator.catalog.unknown import Unknown
from orchestrator.errors import InputError

CATALOG = load(directory=Path(__file__).parent)

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
CONFIGS: dict[str, dict[str, Any]] = {
    "meta-llama/Llama-3.1-8B": LLAMA,
    "mistralai/Mistral-7B-v0.3": LLAMA | {"model_type": "mistral", "sliding_window": None, "vocab_size": 32768},
    "microsoft/phi-4": LLAMA
    | {
        "model_type": "phi3",
        "num_hidden_layers": 40,
        "hidden_size": 5120,
        "intermediate_size": 17920,
        "num_attention_heads": 40,
        "num_key_value_heads": 10,
        "vocab_size": 100352,
        "sliding_window": None,
    },
    "Qwen/Qwen2.5-7B": LLAMA
    | {
        "model_type": "qwen2",
        "num_hidden_layers": 28,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "use_sliding_window": False,
        "sliding_window": 131072,
    },
    "Qwen/Qwen3-30B-A3B": {
        "model_type": "qwen3_moe",
        "num_hidden_layers": 48,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "vocab_size": 151936,
        "tie_word_embeddings": False,
    },
    "Qwen/Qwen3.5-27B": {
        "model_type": "qwen3_5",
        "vision_config": {"hidden_size": 1152},
        "text_config": {
            "model_type": "qwen3_5_text",
            "num_hidden_layers": 64,
            "hidden_size": 5120,
            "intermediate_size": 17408,
            "num_attention_heads": 24,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "attn_output_gate": True,
            "full_attention_interval": 4,
            "linear_num_value_heads": 48,
            "linear_num_key_heads": 16,
            "linear_key_head_dim": 128,
            "linear_value_head_dim": 128,
            "linear_conv_kernel_dim": 4,
            "vocab_size": 248320,
            "tie_word_embeddings": False,
        },
    },
    "deepseek-ai/DeepSeek-V3.2": {
        "model_type": "deepseek_v32",
        "num_hidden_layers": 61,
        "first_k_dense_replace": 3,
        "moe_layer_freq": 1,
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "num_attention_heads": 128,
        "num_key_value_heads": 128,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "index_n_heads": 64,
        "index_head_dim": 128,
        "vocab_size": 129280,
        "tie_word_embeddings": False,
    },
    "openai/gpt-oss-20b": {
        "model_type": "gpt_oss",
        "num_hidden_layers": 24,
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "num_local_experts": 32,
        "num_experts_per_tok": 4,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "attention_bias": True,
        "sliding_window": 128,
        "layer_types": ["sliding_attention", "full_attention"] * 12,
        "vocab_size": 201088,
        "tie_word_embeddings": False,
        "quantization_config": {"quant_method": "mxfp4"},
    },
    "google/gemma-3-1b-pt": {
        "model_type": "gemma3_text",
        "num_hidden_layers": 26,
        "hidden_size": 1152,
        "intermediate_size": 6912,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
        "vocab_size": 262144,
    },
    "google/gemma-2-9b": {
        "model_type": "gemma2",
        "num_hidden_layers": 42,
        "hidden_size": 3584,
        "intermediate_size": 14336,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 256,
        "sliding_window": 4096,
        "vocab_size": 256000,
    },
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct": {
        "model_type": "llama4",
        "vision_config": {"hidden_size": 1408},
        "text_config": {
            "model_type": "llama4_text",
            "num_hidden_layers": 48,
            "hidden_size": 5120,
            "intermediate_size": 8192,
            "intermediate_size_mlp": 16384,
            "interleave_moe_layer_step": 2,
            "num_local_experts": 128,
            "num_experts_per_tok": 1,
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "attention_chunk_size": 8192,
            "use_qk_norm": False,
            "vocab_size": 202048,
        },
    },
    "XiaomiMiMo/MiMo-V2-Flash": {
        "model_type": "mimo_v2_flash",
        "num_hidden_layers": 48,
        "hidden_size": 4096,
        "intermediate_size": 16384,
        "moe_intermediate_size": 2048,
        "moe_layer_freq": [0, *[1] * 47],
        "n_routed_experts": 256,
        "n_shared_experts": None,
        "num_experts_per_tok": 8,
        "num_attention_heads": 64,
        "num_key_value_heads": 4,
        "head_dim": 192,
        "v_head_dim": 128,
        "swa_num_attention_heads": 64,
        "swa_num_key_value_heads": 8,
        "swa_head_dim": 192,
        "swa_v_head_dim": 128,
        "sliding_window": 128,
        "hybrid_layer_pattern": [*[1] * 39, *[0] * 9],
        "vocab_size": 152576,
        "tie_word_embeddings": False,
    },
}


def count(config: dict[str, Any]) -> Parameters:
    found = parameters(from_config(config, "it"))
    assert isinstance(found, Parameters)
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_gives_what_the_catalog_says(name: str) -> None:
    mine, known = from_config(CONFIGS[name], name), CATALOG.model(name)
    counted, expected = parameters(mine), parameters(known)
    assert isinstance(counted, Parameters)
    assert isinstance(expected, Parameters)
    assert counted.total == expected.total - expected.vision
    assert counted.active == expected.active
    assert bytes_per_token(mine) == bytes_per_token(known)
    assert state_bytes_per_sequence(mine) == state_bytes_per_sequence(known)
    assert mine.multimodal == known.multimodal


def folder(tmp_path: Path, config: dict[str, Any], size: int | None = None, card: str | None = None) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(config))
    if size is not None:
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": size}}))
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    return tmp_path


def test_the_weights_beside_it_may_differ_by_little_but_not_by_another_model(tmp_path: Path) -> None:
    exact = 2 * count(LLAMA).total
    assert from_folder(folder(tmp_path, LLAMA, exact)).layers == 32
    assert from_folder(folder(tmp_path, LLAMA, round(exact * 1.03))).layers == 32
    with pytest.raises(InputError, match="8,030,261,248 parameters"):
        from_folder(folder(tmp_path, LLAMA, round(exact * 0.9)))


def test_a_single_file_of_weights_is_compared_too(tmp_path: Path) -> None:
    small = LLAMA | {"num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 128, "vocab_size": 1000}
    small |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    (tmp_path / "model.safetensors").write_bytes(b"\0" * (2 * count(small).total + 200))
    assert from_folder(folder(tmp_path, small)).layers == 1
    with pytest.raises(InputError, match="weights beside it"):
        from_folder(folder(tmp_path, small | {"num_hidden_layers": 4}))


def test_quantized_weights_are_not_held_against_the_configuration(tmp_path: Path) -> None:
    quantized = LLAMA | {"quantization_config": {"quant_method": "awq", "bits": 4}}
    assert from_folder(folder(tmp_path, quantized, 5_700_000_000)).native_dtype == "awq-4bit"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"head_dim": 4096}, "32 heads of head_dim 4096 do not fit hidden_size 4096"),
        ({"num_attention_heads": 30}, "not divisible by 30 heads"),
        ({"num_key_value_heads": 7}, "32 query heads cannot share 7"),
        ({"num_local_experts": 8}, "model_type 'llama' has no num_local_experts"),
        ({"layer_types": ["full_attention"] * 31}, "layer_types has 31 entries, num_hidden_layers is 32"),
        ({"layer_types": ["mamba"] * 32}, "layer_types has 'mamba'"),
        ({"architectures": ["Qwen3ForCausalLM"]}, "not built like its architecture 'Qwen3ForCausalLM'"),
        ({"kv_lora_rank": 512}, "has no kv_lora_rank"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be a positive whole number, found 0"),
        ({"hidden_size": "4096"}, "hidden_size must be a positive whole number, found '4096'"),
        ({"vocab_size": None}, "vocab_size must be a positive whole number, found None"),
        ({"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 9}, "9 is more than the 8 experts"),
    ],
)
def test_a_configuration_that_lies_is_one_clear_error(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        from_config(LLAMA | change, "it", "model/config.json")


def test_an_unknown_kind_with_the_standard_fields_is_read_but_not_called_verified() -> None:
    found = from_config(LLAMA | {"model_type": "brand_new"}, "it")
    assert not found.verified
    assert "brand_new" in (found.notes or "")
    assert isinstance(parameters(found), Parameters)


def test_an_unknown_architecture_stays_unknown() -> None:
    found = parameters(from_config(LLAMA | {"model_type": "brand_new", "mamba_num_heads": 64}, "it"))
    assert isinstance(found, Unknown)
    assert "brand_new" in found.reason


def test_not_json_and_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config.json"):
        from_folder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot read"):
        from_folder(tmp_path)


def test_the_catalog_reads_a_folder_and_the_local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = "---\nlicense: other\nlicense_name: qwen\n---\n# It\n"
    found = CATALOG.model(str(folder(tmp_path, LLAMA, card=card)))
    assert (found.layers, found.license) == (32, "qwen")
    snapshot = tmp_path / "hub" / "models--acme--Legal-8B" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    folder(snapshot, LLAMA, card="---\nlicense: llama3.1\n---\n")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    assert CATALOG.model("acme/Legal-8B").license == "llama3.1"
    assert CATALOG.license("llama3.1").id == "llama31"
    with pytest.raises(InputError, match="no model"):
        CATALOG.model("acme/Other-8B")
