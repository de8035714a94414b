"""The real vLLM on this machine's CPU, with exports of a tiny model: five servers, one after another.

Each takes most of a minute to start, so that the tests of one export share one.
"""

import http.client
import json
import os
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from orchestrator.cli.app import home
from orchestrator.controller.execute import run_worker
from orchestrator.engines import _vllm_lora, client, running, vllm
from orchestrator.engines.base import LORA, Source, Tools
from orchestrator.engines.client import Sampling
from orchestrator.engines.running import Running
from orchestrator.environments.site import Site
from orchestrator.errors import EngineError
from orchestrator.stages._divergence import kl_of_top
from orchestrator.token_contract import Golden, TokenContract

pytestmark = [pytest.mark.slow, pytest.mark.engine]

SITE = Site(home())
OPTIONS = vllm.Options(enforce_eager=True, kv_cache_memory_bytes=2**28)
CHAT = [{"role": "user", "content": "Name it: permission is hereby granted free of charge to"}]
TOP = 100


class Trained(NamedTuple):
    """A tuned model, and what it says about CHAT."""

    source: Source
    prompt_ids: list[int]
    text: str
    logprobs: dict[int, float]
    """Of the first token of the answer, over the whole vocabulary."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tests import tiny_model

    folder = tmp_path_factory.mktemp("trained")
    base, rows = tiny_model.build_base(folder / "base"), tiny_model.write_rows(folder / "rows.jsonl", 40)
    adapter = tiny_model.build_adapter(base, folder / "adapter", "lora")
    run_worker("merge", {"tuned": str(adapter), "out": str(folder / "merged")}, folder, say)
    tokenizer = AutoTokenizer.from_pretrained(folder / "merged")
    model = AutoModelForCausalLM.from_pretrained(folder / "merged")
    ids = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
    with torch.inference_mode():
        logprobs = torch.log_softmax(model(torch.tensor([ids])).logits[0, -1], -1).tolist()
        answer = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=20)[0, len(ids) :]
    source = Source(merged=folder / "merged", base=base, adapter=adapter, rows=rows)
    return Trained(source, ids, tokenizer.decode(answer, skip_special_tokens=True), dict(enumerate(logprobs)))


def say(kind: str, /, **data: Any) -> None:
    print(kind, data)


def exported(source: Source, quantization: str, folder: Path) -> Path:
    def work(name: str, request: Mapping[str, Any], *, python: Any = None) -> dict[str, Any]:
        return run_worker(name, request, folder, say, python=python)

    out = folder / "export"
    out.mkdir()
    vllm.export(source, quantization, out, Tools(SITE, folder / "log", work, print, folder))
    return out


@contextmanager
def serving(export: Path) -> Iterator[Running]:
    with running.engine("vllm", export, OPTIONS, alias="tiny@1", directory=export.parent / "logs", site=SITE) as served:
        yield served


def divergence(served: Running, trained: Trained) -> float:
    """Nats between the merged model's next-token distribution and the served one's."""
    found = vllm.next_token_logprobs(served.launch, trained.prompt_ids, TOP)
    assert len(found) == TOP
    return kl_of_top(trained.logprobs, found)


@pytest.fixture(scope="module")
def plain(trained, tmp_path_factory) -> Iterator[Running]:
    """The merged model in 16 bits, with a longer context than it was trained for: requests last longer."""
    export = exported(trained.source, "BF16", tmp_path_factory.mktemp("plain"))
    config = json.loads((export / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    (export / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8192}))
    with serving(export) as served:
        yield served


def test_it_reads_and_answers_as_the_model_was_trained(plain, trained):
    answer = plain.chat(CHAT, Sampling(max_tokens=20))
    assert (answer.text, answer.finish_reason) == (trained.text, "stop")
    assert vllm.prompt_tokens(plain.launch, CHAT) == trained.prompt_ids
    assert answer.prompt_tokens == len(trained.prompt_ids)


def test_its_probabilities_are_those_of_the_merged_model(plain, trained):
    assert divergence(plain, trained) < 0.01


def test_the_token_contract_tells_its_template_from_another(plain, trained):
    """Held to the contract of its training the server is ready; to that of another template it is not."""
    kept = Golden(messages=CHAT, prompt_ids=trained.prompt_ids, answer_ids=[], text="", ended=True, max_tokens=20)
    template = (plain.launch.model / "chat_template.jinja").read_text()
    contract = TokenContract(chat_template=template, special_tokens={}, stop_ids=[], vocabulary=512, golden=kept)
    running.wait_until_ready(plain, contract=contract)
    other = kept.model_copy(update={"prompt_ids": [*trained.prompt_ids[:3], *trained.prompt_ids[4:]]})
    with pytest.raises(EngineError, match=r"the first difference is at position 3.*prompt tokens, not"):
        running.wait_until_ready(plain, contract=contract.model_copy(update={"golden": other}))


def test_probabilities_of_ids_that_the_tokenizer_does_not_have_leave_it_alive(plain, trained):
    with pytest.raises(EngineError, match="max allowed: 200"):
        vllm.next_token_logprobs(plain.launch, trained.prompt_ids, 500)
    found = vllm.next_token_logprobs(plain.launch, [4, 10, 11], 200)
    known = len(json.loads((plain.launch.model / "tokenizer.json").read_text())["model"]["vocab"])
    assert max(found) >= known, "the embedding of this model is wider than its tokenizer"
    assert plain.chat(CHAT, Sampling(max_tokens=1)).completion_tokens == 1


def test_a_request_that_is_too_long_is_an_error_and_it_lives_on(plain):
    with pytest.raises(EngineError, match="maximum context length is 8192 tokens"):
        plain.chat([{"role": "user", "content": "any person " * 8000}], Sampling(max_tokens=1))
    assert plain.chat(CHAT, Sampling(max_tokens=1)).completion_tokens == 1


def test_its_metrics_are_read(plain):
    found = vllm.parse_metrics(client.get_or_post(f"{client.root(plain.url)}/metrics"))
    assert found.running == found.waiting == 0
    assert found.generated_tokens_total >= 1
    assert found.kv_cache_usage is not None


def test_a_request_in_flight_is_finished_before_it_stops(plain):
    """The last test of this server: its process ends."""
    connection = http.client.HTTPConnection(plain.launch.host, plain.launch.port, timeout=60)
    body = {"model": plain.model, "messages": CHAT, "max_tokens": 800, "ignore_eos": True, "stream": True}
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    stream = connection.getresponse()
    assert stream.readline().startswith(b"data: {")
    stopping = threading.Thread(target=plain.process.stop)
    stopping.start()
    events = [line for line in stream.read().decode().splitlines() if line]
    stopping.join()
    assert events[-1] == "data: [DONE]"
    assert any('"finish_reason":"length"' in event for event in events)
    assert plain.process.poll() == 0


@pytest.fixture(scope="module")
def on_base(trained, tmp_path_factory) -> Iterator[Running]:
    """The adapter on its base."""
    with serving(exported(trained.source, LORA, tmp_path_factory.mktemp("adapter"))) as served:
        yield served


def test_an_adapter_answers_under_its_alias_as_the_merged_model_does(on_base, trained):
    assert vllm.models(on_base.launch) == ["tiny@1-base", "tiny@1"]
    answer = on_base.chat(CHAT, Sampling(max_tokens=20))
    assert (answer.text, answer.finish_reason) == (trained.text, "stop")
    assert vllm.prompt_tokens(on_base.launch, CHAT) == trained.prompt_ids
    assert divergence(on_base, trained) < 0.01


def test_without_the_adapter_the_base_answers(on_base, trained):
    base = replace(on_base.launch, alias="tiny@1-base")
    assert kl_of_top(trained.logprobs, vllm.next_token_logprobs(base, trained.prompt_ids, TOP)) > 1


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"use_dora": True}, "vLLM does not yet support DoRA"),
        ({"r": 32}, "LoRA rank 32 is greater than max_lora_rank 8"),
        ({"modules_to_save": ["lm_head"]}, r"Unsupported modules_to_save: \['lm_head'\]"),
        ({"init_lora_weights": "pissa"}, "does not support init_lora_weights='pissa'"),
        ({"bias": "all"}, "Adapter bias is not supported"),
        ({"width": 128}, "The size of tensor a .* must match the size of tensor b"),
    ],
)
def test_an_adapter_that_it_cannot_apply_is_refused_with_its_reason(on_base, trained, tmp_path, how, reason):
    launch = replace(on_base.launch, alias="bad@1", model=build_adapter(trained.source.base, tmp_path, **how))
    with pytest.raises(EngineError, match=f"vLLM refuses the adapter bad@1: .*{reason}") as caught:
        _vllm_lora.load(launch)
    assert "or export the merged model instead" in str(caught.value.next_step)
    assert on_base.chat(CHAT, Sampling(max_tokens=1)).completion_tokens == 1


def build_adapter(base: Path, folder: Path, width: int | None = None, **settings: Any) -> Path:
    """An adapter that knows nothing, of the base, or of one of another width."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(base)
    if width:
        config.hidden_size, config.head_dim = width, width // 2
    model = AutoModelForCausalLM.from_config(config)
    settings = {"r": 4, "target_modules": ["q_proj", "v_proj"], **settings}
    get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings)).save_pretrained(folder / "adapter")
    return folder / "adapter"


def test_an_engine_that_dies_under_its_server_is_diagnosed_by_its_log(on_base):
    """The last test of this server: it ends itself."""
    core = re.search(r"EngineCore pid=(\d+)", on_base.process.log.read_text())
    assert core
    os.kill(int(core[1]), signal.SIGKILL)
    with pytest.raises(EngineError):
        on_base.chat(CHAT, Sampling(max_tokens=1))
    on_base.process.wait()
    assert "its engine process is dead" in str(on_base.failed("it died"))


@pytest.mark.parametrize(("quantization", "most"), [("FP8", 0.02), ("INT8", 0.02), ("GPTQ", 0.02)])
def test_a_quantized_model_answers_as_the_merged_one(quantization, most, trained, tmp_path):
    if not vllm.supports(quantization, None).ok:
        pytest.skip(vllm.supports(quantization, None).reason)
    export = exported(trained.source, quantization, tmp_path)
    assert json.loads((export / "config.json").read_text())["quantization_config"]["ignore"] == ["lm_head"]
    merged = trained.source.merged
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (export / name).read_bytes() == (merged / name).read_bytes()
    if quantization != "FP8":
        assert json.loads((export / "calibration.json").read_text()) == {"rows": 40, "tokens": 1279, "seed": 17}
    with serving(export) as served:
        answer = served.chat(CHAT, Sampling(max_tokens=20))
        assert (answer.text, answer.finish_reason) == (trained.text, "stop")
        found = divergence(served, trained)
        print(f"{quantization}: {found:.5f} nats")
        assert 0 < found < most


def test_a_context_that_the_model_does_not_have_is_said_when_it_does_not_start(trained, tmp_path):
    export = exported(trained.source, "FP32", tmp_path)
    options = OPTIONS.model_copy(update={"max_model_len": 4096})
    with (
        pytest.raises(EngineError, match="max_model_len 4096 is more than the 256 tokens that the model was made for"),
        running.engine("vllm", export, options, alias="tiny@1", directory=tmp_path / "logs", site=SITE),
    ):
        pass
