"""Bytes of the KV cache and of the recurrent state, exact."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.catalog.catalog import load
from orchestrator.catalog.kv_cache import bytes_per_token, kv_bytes, state_bytes_per_sequence

CATALOG = load()
IDS = [model.id for model in CATALOG.models if model.attention]


@pytest.mark.parametrize(
    ("name", "bf16", "fp8"),
    [
        ("Qwen/Qwen3.5-397B-A17B", 30720, 15360),
        ("Qwen/Qwen3.5-122B-A10B", 24576, 12288),
        ("Qwen/Qwen3.5-35B-A3B", 20480, 10240),
        ("Qwen/Qwen3.5-27B", 65536, 32768),
        ("deepseek-ai/DeepSeek-R1", 70272, 35136),
        ("moonshotai/Kimi-K2-Instruct", 70272, 35136),
        ("mistralai/Mistral-Medium-3.5-128B", 360448, 180224),
        ("XiaomiMiMo/MiMo-7B-Base", 147456, 73728),
        ("XiaomiMiMo/MiMo-V2-Flash", 23040, 11520),
        ("meta-llama/Llama-3.1-8B", 131072, 65536),
        ("meta-llama/Llama-3.1-70B", 327680, 163840),
        ("meta-llama/Llama-3.1-405B", 516096, 258048),
        ("meta-llama/Llama-3.2-3B", 114688, 57344),
        ("meta-llama/Llama-2-7b-hf", 524288, 262144),
        ("meta-llama/Llama-2-13b-hf", 819200, 409600),
        ("Qwen/Qwen2.5-7B", 57344, 28672),
        ("Qwen/Qwen3-8B", 147456, 73728),
    ],
)
def test_bytes_per_token(name: str, bf16: int, fp8: int) -> None:
    model = CATALOG.model(name)
    assert bytes_per_token(model, 2) == bf16
    assert bytes_per_token(model, 1) == fp8


def test_a_model_with_windows_counts_them_only_for_engines_that_keep_all_layers_at_full_length() -> None:
    scout = CATALOG.model("meta-llama/Llama-4-Scout-17B-16E-Instruct")
    assert bytes_per_token(scout, 2, hybrid=False) == 196608
    assert bytes_per_token(scout, 2) == 196608 // 4
    mimo = CATALOG.model("XiaomiMiMo/MiMo-V2-Flash")
    assert bytes_per_token(mimo, 2, hybrid=False) == 23040 + 199680
    assert kv_bytes(mimo, 100_000, 2) == 100_000 * 23040 + 25559040


def test_sparse_attention_caches_the_indexer_s_key_too() -> None:
    model = CATALOG.model("deepseek-ai/DeepSeek-V3.2")
    assert bytes_per_token(model, 2) == 70272 + 8052
    assert bytes_per_token(model, layout="fp8_ds_mla") == 40016 + 8052


@pytest.mark.parametrize(
    ("name", "fp32", "bf16", "conv"),
    [
        ("Qwen/Qwen3.5-397B-A17B", 188743680, 94371840, 4423680),
        ("Qwen/Qwen3.5-122B-A10B", 150994944, 75497472, 3538944),
        ("Qwen/Qwen3.5-35B-A3B", 62914560, 31457280, 1966080),
        ("Qwen/Qwen3.5-27B", 150994944, 75497472, 3932160),
    ],
)
def test_the_recurrent_state_is_exact(name: str, fp32: int, bf16: int, conv: int) -> None:
    model = CATALOG.model(name)
    assert state_bytes_per_sequence(model, 4, 2) == fp32 + conv
    assert state_bytes_per_sequence(model, 2, 2) == bf16 + conv
    assert kv_bytes(model, 0) == 0


def test_tensor_parallelism_divides_heads_but_not_the_latent() -> None:
    llama, kimi = CATALOG.model("Llama-3.1-70B"), CATALOG.model("Kimi-K2")
    assert bytes_per_token(llama, 2, tensor=8) == 327680 // 8
    assert bytes_per_token(llama, 2, tensor=16) == 327680 // 8  # more GPUs than heads: each keeps a copy
    assert bytes_per_token(kimi, 2, tensor=8) == bytes_per_token(kimi, 2)


@given(name=st.sampled_from(IDS), tokens=st.integers(0, 10**6), more=st.integers(0, 10**6), shards=st.integers(1, 64))
def test_more_tokens_never_need_less_and_sharding_never_more(name: str, tokens: int, more: int, shards: int) -> None:
    model = CATALOG.model(name)
    assert kv_bytes(model, tokens + more) >= kv_bytes(model, tokens)
    assert kv_bytes(model, tokens) <= kv_bytes(model, tokens, hybrid=False)
    assert kv_bytes(model, tokens, tensor=shards) <= kv_bytes(model, tokens)
    assert kv_bytes(model, tokens, 1) <= kv_bytes(model, tokens, 2)
