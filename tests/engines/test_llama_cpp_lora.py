"""Adapters beside their base on llama.cpp's real server: as PEFT applies them, or not at all."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.engines import _llama_cpp_lora as lora
from orchestrator.engines import _llama_cpp_record as records
from orchestrator.engines import client, llama_cpp
from orchestrator.engines.base import LORA, Adapter, Source
from orchestrator.engines.client import Sampling
from orchestrator.engines.running import Running
from orchestrator.errors import EngineError, InputError
from tests.engines.test_adapter import folder as adapter_folder
from tests.engines.tiny_gguf import changed, export, serving, set_field, tools

SCALE = {"plain": {}, "rslora": {"use_rslora": True}}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    pytest.importorskip("torch")
    from tests import tiny_model

    return tiny_model.build_base(tmp_path_factory.mktemp("lora") / "base")


@pytest.fixture(scope="module", params=SCALE)
def tuned(base, tmp_path_factory, request) -> Source:
    """A base and an adapter of rank 16 that was trained on it."""
    from tests import tiny_model

    folder = tmp_path_factory.mktemp(request.param)
    adapter = tiny_model.build_adapter(base, folder / "adapter", "lora", r=16, lora_alpha=8, **SCALE[request.param])
    return Source(merged=base, base=base, adapter=adapter)


@pytest.fixture(scope="module")
def exported(tuned, tmp_path_factory) -> Path:
    return export(tuned, LORA, tmp_path_factory.mktemp("exports"))


def question() -> list[dict[str, Any]]:
    from tests import tiny_model

    found: list[dict[str, Any]] = tiny_model.rows(1)[0]["messages"][:1]
    return found


def distances(served: Running, adapter: Path) -> Iterator[float]:
    """How far the server's log-probabilities are from PEFT's, after some prefixes of the question."""
    import torch

    from orchestrator.workers import loading

    model = loading.load_tuned(adapter, loading.read_training(adapter))
    prompt = loading.prompt_ids(loading.load_tokenizer(adapter), question())
    for ids in (prompt[:5], prompt[:12], prompt):
        with torch.inference_mode():
            wanted = torch.log_softmax(model(torch.tensor([ids])).logits[0, -1].float(), -1)
        found = llama_cpp.next_token_logprobs(served.launch, ids, 20)
        yield max(abs(wanted[token].item() - logprob) for token, logprob in found.items())


def test_an_alpha_makes_alpha_by_rank_the_scale_of_peft():
    assert lora.alpha(Adapter(rank=16, alpha=8)) == 8
    assert lora.alpha(Adapter(rank=16, alpha=8, use_rslora=True)) / 16 == 8 / 16**0.5


def test_tokenizer_and_end_tokens_are_those_of_training_and_weights_those_of_the_base(tmp_path):
    base, merged, made = tmp_path / "base", tmp_path / "merged", tmp_path / "made"
    for path in (base, merged, made):
        path.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"):
        (base / name).write_text("base")
        (merged / name).write_text("merged")
    lora.base_as_trained(base, merged, made)
    assert {path.name: path.read_text() for path in made.iterdir()} == {
        "config.json": "base",
        "model.safetensors": "base",
        "tokenizer.json": "merged",
        "chat_template.jinja": "merged",
    }


@pytest.mark.parametrize(
    ("trained", "reason"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "whole modules"),
        ({"names": ("base_model.model.model.embed_tokens.weight",)}, "the vocabulary was resized"),
        ({"init_lora_weights": "pissa"}, "pissa changed the base's weights"),
    ],
)
def test_an_adapter_that_would_be_served_wrongly_is_refused_by_its_own_folder(tmp_path, trained, reason):
    """Whatever the recipe said: PiSSA converts without a word, and is wrong."""
    (tmp_path / "config.json").write_text("{}")
    source = Source(merged=tmp_path, base=tmp_path, adapter=adapter_folder(tmp_path / "adapter", **trained))
    with pytest.raises(InputError, match=reason) as caught:
        lora.export(source, tmp_path, tools(tmp_path))
    assert "export the merged model" in str(caught.value.next_step)


def test_a_model_that_was_trained_as_a_whole_has_no_adapter_to_serve(tmp_path):
    with pytest.raises(InputError, match="there is no adapter to serve"):
        lora.export(Source(merged=tmp_path), tmp_path, tools(tmp_path))


def test_a_base_that_is_not_there_is_named(tmp_path):
    adapter = adapter_folder(tmp_path / "adapter", base_model_name_or_path="some/model")
    with pytest.raises(InputError, match="the adapter's base some/model is not a model's folder"):
        lora.export(Source(merged=tmp_path, adapter=adapter), tmp_path, tools(tmp_path))


@pytest.mark.slow
def test_an_adapter_acts_as_peft_applies_it(tuned, exported, tmp_path):
    with serving(exported, tmp_path) as served:
        assert max(distances(served, tuned.adapter)) < 0.02
        answer = served.chat(question(), Sampling(max_tokens=20))
        assert (answer.text, answer.finish_reason) == ("Licence: MIT", "stop")


@pytest.mark.slow
def test_requests_say_that_the_adapter_acts_and_so_do_the_servers_own_scales(exported, tmp_path):
    with serving(exported, tmp_path) as served:
        assert served.fields == {"lora": [{"id": 0, "scale": 1.0}]}
        root = client.root(served.url)
        assert [entry["scale"] for entry in client.call(f"{root}/lora-adapters")] == [1.0]
        client.call(f"{root}/lora-adapters", [])
        assert [entry["scale"] for entry in client.call(f"{root}/lora-adapters")] == [0.0]
        assert served.chat(question(), Sampling(max_tokens=20)).text == "Licence: MIT", "its request says it"
        llama_cpp.attach(served.launch)
        assert [entry["scale"] for entry in client.call(f"{root}/lora-adapters")] == [1.0]


@pytest.mark.slow
def test_a_wrong_scale_is_caught_by_the_record_and_by_parity(tuned, exported, tmp_path):
    """rsLoRA as the converter leaves it, and a plain adapter as if it were rsLoRA."""
    wrong, record = changed(exported, tmp_path / "wrong"), records.read(exported)
    assert record is not None
    assert record.adapter is not None
    alpha = 8.0 if record.adapter.alpha == 32 else 32.0
    set_field(wrong / lora.ADAPTER, "adapter.lora.alpha", alpha)
    with pytest.raises(InputError, match=f"is not lora: its alpha is {alpha}, not {record.adapter.alpha}"):
        llama_cpp.check(wrong, tuned, LORA)
    with pytest.raises(EngineError, match=rf"its adapter is rank=16 alpha={alpha}"), serving(wrong, tmp_path):
        pytest.fail("it was served")
    (wrong / records.FILE).unlink()
    with serving(wrong, tmp_path) as served:
        assert max(distances(served, tuned.adapter)) > 1


@pytest.mark.slow
def test_an_adapter_of_another_base_ends_the_server_and_its_log_says_why(exported, tmp_path):
    from tests import tiny_model

    wider = tiny_model.build_base(tmp_path / "wider", hidden_size=128)
    out = export(Source(merged=wider), "F32", tmp_path)
    shutil.copy(exported / lora.ADAPTER, out)
    (out / records.FILE).unlink()
    with pytest.raises(EngineError, match="the adapter belongs to another base"), serving(out, tmp_path):
        pytest.fail("it was served")
