"""TensorRT-LLM's adapter: what it writes, and how it gets on with a fake of the server (`fake_trtllm.py`).

Nothing here ran TensorRT-LLM itself, which needs an NVIDIA GPU. ModelOpt is the real one.
"""

import json
import os
import re
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from orchestrator.bench import targets
from orchestrator.catalog.catalog import load
from orchestrator.engines import _adapter, _chat_tokens, client, running, tensorrt_llm
from orchestrator.engines.base import LORA, Adapter, Launch, Source, Tools
from orchestrator.engines.client import Sampling
from orchestrator.engines.running import Running
from orchestrator.environments.environment import Installed
from orchestrator.environments.site import Site
from orchestrator.errors import EngineError, InputError
from orchestrator.loadgen import probe
from orchestrator.loadgen.workload import bodies
from orchestrator.loadgen.workload.talk import Talk, Turn
from orchestrator.token_contract import Golden, TokenContract
from tests.engines import fake_trtllm

CHAT = [{"role": "user", "content": "Name it: free of charge"}]
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def launch(model: Path, directory: Path = Path("/logs"), alias: str = "legal@3") -> Launch:
    return Launch(model, alias, "127.0.0.1", 4321, directory, Installed(name="tensorrt_llm", version="", where="path"))


def options(**given: Any) -> tensorrt_llm.Options:
    return tensorrt_llm.Options(**given)


def of(text: dict[str, str]) -> dict[str, Any]:
    (written,) = text.values()
    found: dict[str, Any] = yaml.safe_load(written)
    return found


def safetensors(path: Path, names: list[str]) -> None:
    """A file with these tensors, of one number each."""
    entries = {name: {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i, name in enumerate(names)}
    header = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(len(names)))


def write_adapter(folder: Path, *modules: str, rank: int = 12) -> Path:
    folder.mkdir(parents=True)
    settings = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "rank_pattern": {"q_proj": rank}}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    layer = "base_model.model.model.layers.0"
    names = [f"{layer}.{module}.lora_{side}.weight" for module in modules for side in "AB"]
    safetensors(folder / "adapter_model.safetensors", names)
    return folder


@pytest.fixture
def model(tmp_path) -> Path:
    """A model's folder as transformers 5 leaves it; its weights are one number."""
    folder = tmp_path / "merged"
    folder.mkdir()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([fake_trtllm.ANSWER, fake_trtllm.ADAPTED, "free of charge"] * 9, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    of_tokenizer = {"eos_token": "<|im_end|>", "extra_special_tokens": special, "tokenizer_class": "TokenizersBackend"}
    (folder / "tokenizer_config.json").write_text(json.dumps(of_tokenizer))
    rotary = {"rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0}
    (folder / "config.json").write_text(json.dumps({"dtype": "bfloat16", "rope_parameters": rotary}))
    safetensors(folder / "model.safetensors", ["lm_head.weight"])
    return folder


def exported(source: Source, quantization: str, out: Path) -> Path:
    out.mkdir()
    tools = Tools(Site(out.parent), out.parent / "log", worker=None, say=print, shared=out)  # type: ignore[arg-type]
    tensorrt_llm.export(source, quantization, out, tools)
    return out


# what it writes


def test_everything_but_the_address_and_the_backend_stands_in_the_yaml_file_and_nothing_in_both(tmp_path):
    asked = launch(tmp_path / "m", tmp_path)
    command = tensorrt_llm.command(asked, options())
    flags = {part.removeprefix("--") for part in command if part.startswith("--")}
    assert command[:3] == ["trtllm-serve", "serve", str(tmp_path / "m")]
    assert flags == {"host", "port", "backend", "extra_llm_api_options"}
    written = tensorrt_llm.files(asked, options())
    assert [str(tmp_path / name) for name in written] == [command[command.index("--extra_llm_api_options") + 1]]
    assert not flags & of(written).keys()


def test_options_reach_the_yaml_file_under_the_engines_names():
    given = options(max_seq_len=4096, kv_cache_config={"dtype": "fp8"}, cuda_graph_config=None)
    found = of(tensorrt_llm.files(launch(Path("m")), given))
    assert found["max_seq_len"] == 4096
    assert found["kv_cache_config"] == {"free_gpu_memory_fraction": 0.9, "enable_block_reuse": True, "dtype": "fp8"}
    assert found["cuda_graph_config"] is None, "left out, graphs would be on"
    assert found["enable_iter_perf_stats"] is found["return_perf_metrics"] is True
    assert "lora_config" not in found
    assert found.keys() <= fake_trtllm.LLM_ARGS


def test_planning_knows_its_options_by_its_own_names():
    planned = tensorrt_llm.planned(options(tensor_parallel_size=2, max_batch_size=64))
    assert planned["tensor"] == 2
    assert planned["max_num_seqs"] == 64
    assert "max_model_len" not in planned


@pytest.mark.parametrize(
    ("quantization", "kind", "reason"),
    [
        ("BF16", None, "no NVIDIA GPU"),
        ("FP8", "MI300X", "no NVIDIA GPU"),
        ("FP8", "A100-80GB", "cannot serve fp8 on A100-80GB"),
        ("NVFP4", "H100", "NVFP4 runs on Blackwell only"),
        ("INT4_AWQ", "B200", "int4 has no Blackwell kernels"),
        ("W4A8_AWQ", "A100-80GB", "runs on Ada and Hopper only"),
        ("int4_awq", "H100", "did you mean 'INT4_AWQ'"),
        ("INT4_AWQ", "H100", ""),
        ("NVFP4", "B200", ""),
        (LORA, "A100-80GB", ""),
    ],
)
def test_a_format_is_served_where_the_support_matrix_says_so(quantization, kind, reason):
    support = tensorrt_llm.supports(quantization, load().gpu(kind) if kind else None)
    assert support.ok == (not reason)
    assert reason in support.reason


def test_there_is_no_environment_without_an_nvidia_gpu_but_one_that_quantizes():
    serves, quantizes = tensorrt_llm.ENVIRONMENTS
    assert serves.refusals == {"cpu": "no NVIDIA GPU", "rocm": "no NVIDIA GPU"}
    assert list(serves.kinds) == ["cuda"]
    assert set(quantizes.kinds) == {"cpu", "cuda"}
    assert "quantizes on the CPU" in quantizes.refusals["rocm"]


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        ("ValueError: No GPU devices found on the node", "No GPU devices found: no NVIDIA GPU is visible to it"),
        (
            "1 validation error for TorchLlmArgs\nfoo\n  Extra inputs are not permitted [type=extra_forbidden]",
            "foo: this version does not know the option",
        ),
        (
            "RuntimeError: Failed to bind socket to 127.0.0.1:1: [Errno 98] Address already in use",
            "127.0.0.1:1: another process has its port",
        ),
        (
            "RuntimeError: Executor creation failed due to insufficient GPU memory.\n\n"
            "The following component could not be created: KV cache\nTotal GPU memory (GiB): 79.1",
            "KV cache: no GPU memory is left for it",
        ),
        ("ValueError: unsupported quantization: W4A16_AWQ", "it does not serve this weight format on this GPU"),
    ],
)
def test_what_a_log_says_becomes_a_cause_with_a_remedy(log, cause):
    assert cause in (tensorrt_llm.diagnose(f"Traceback\n{log}\nmore") or "")


def test_what_its_loader_of_adapters_passes_over_is_refused():
    assert tensorrt_llm.refuses(Adapter(rank=16, alpha=32, use_rslora=True, rank_pattern=True), LORA) == []
    odd = {"use_dora": True, "modules_to_save": ("lm_head",), "bias": "all", "alpha_pattern": True}
    odd |= {"init_lora_weights": "pissa"}
    assert len(tensorrt_llm.refuses(Adapter(rank=16, alpha=32, **odd), LORA)) == 5
    assert tensorrt_llm.refuses(Adapter(rank=16, alpha=32, **odd), "FP8") == []


# exports


def test_an_export_is_read_by_the_transformers_that_it_pins(model, tmp_path):
    out = exported(Source(merged=model), "BF16", tmp_path / "bf16")
    config, tokenizer = (json.loads((out / name).read_text()) for name in ("config.json", "tokenizer_config.json"))
    assert config["dtype"] == "bfloat16"
    assert (config["rope_theta"], config["rope_scaling"]) == (500000.0, {"rope_type": "llama3", "factor": 8.0})
    assert tokenizer["additional_special_tokens"] == ["<|im_start|>", "<|im_end|>"]
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "extra_special_tokens" in (model / "tokenizer_config.json").read_text(), "the merged model stays as it is"


def test_an_adapter_lies_beside_its_base_and_its_names_and_rank_stand_in_the_yaml_file(model, tmp_path):
    adapter = write_adapter(tmp_path / "adapter", "self_attn.q_proj", "mlp.gate_proj", "mlp.up_proj")
    out = exported(Source(merged=model, base=model, adapter=adapter), LORA, tmp_path / "lora")
    found = of(tensorrt_llm.files(launch(out), options()))["lora_config"]
    assert found["lora_target_modules"] == ["attn_q", "mlp_h_to_4h", "mlp_gate"]
    assert found["max_lora_rank"] == _adapter.read(adapter).rank == 12
    asked = tensorrt_llm.request_fields(launch(out))["lora_request"]
    assert asked["lora_path"] == str(out / "adapter")
    assert asked == tensorrt_llm.request_fields(launch(out))["lora_request"], "the same number in every request"
    other = tensorrt_llm.request_fields(launch(out, alias="legal@4"))["lora_request"]
    assert asked["lora_int_id"] != other["lora_int_id"]


def test_an_adapter_on_modules_without_a_name_is_refused_in_the_plan_and_by_the_export(model, tmp_path):
    (refused,) = tensorrt_llm.refuses(Adapter(rank=8, alpha=8, target_modules=("gate", "q_proj")), LORA)
    assert "no name for modules gate" in refused
    adapter = write_adapter(tmp_path / "adapter", "self_attn.q_proj", "mlp.gate")
    with pytest.raises(InputError, match="no name for modules gate"):
        exported(Source(merged=model, base=model, adapter=adapter), LORA, tmp_path / "lora")


def test_a_planned_adapter_stands_in_the_yaml_file_before_there_is_one():
    planned = replace(launch(Path("/m")), adapter=Adapter(rank=16, alpha=32, target_modules=("q_proj",)))
    found = of(tensorrt_llm.files(planned, options()))["lora_config"]
    assert (found["lora_target_modules"], found["max_lora_rank"]) == (["attn_q"], 16)


def test_a_quantization_without_data_to_calibrate_on_is_refused(model, tmp_path):
    with pytest.raises(InputError, match="FP8 is calibrated on chats of the training data, and there are none"):
        exported(Source(merged=model), "FP8", tmp_path / "fp8")


# the fake server


@pytest.fixture
def on_path(tmp_path, monkeypatch) -> Path:
    """The fake as `trtllm-serve` on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return fake_trtllm.install(folder)


@contextmanager
def serving(model: Path, folder: Path, contract: TokenContract | None = None, **given: Any) -> Iterator[Running]:
    """Started as any engine is, with its real command line and YAML file."""
    found = running.start(
        "tensorrt_llm", model, options(**given), alias="legal@3", directory=folder, site=Site(folder, "cuda")
    )
    try:
        running.wait_until_ready(found, contract=contract, timeout_s=120)
        yield found
    finally:
        found.process.stop()


def contract(model: Path, **golden: Any) -> TokenContract:
    ids = _chat_tokens.prompt_ids(model, CHAT)
    assert ids
    said = Golden(messages=CHAT, prompt_ids=ids, answer_ids=[], text=fake_trtllm.ANSWER, ended=True, max_tokens=64)
    return TokenContract(
        chat_template=TEMPLATE,
        special_tokens={},
        stop_ids=[1],
        vocabulary=300,
        golden=said.model_copy(update=golden),
    )


def test_the_fake_is_served_held_to_its_contract_asked_and_measured(model, tmp_path, on_path):
    with serving(model, tmp_path / "run", contract(model), max_seq_len=512) as served:
        answer = served.chat(CHAT, Sampling(max_tokens=64))
        assert (answer.text, answer.finish_reason) == (fake_trtllm.ANSWER, "stop")
        ids = tensorrt_llm.prompt_tokens(served.launch, CHAT)
        assert ids is not None
        assert answer.prompt_tokens == len(ids)
        assert tensorrt_llm.models(served.launch) == ["merged"], "its folder's name"
        root = client.root(served.url)
        assert tensorrt_llm.parse_metrics(client.get_or_post(f"{root}/metrics")).running == 1
        assert client.get_or_post(f"{root}/metrics") == "[]", "reading has emptied it"
        assert "request_success_total" in client.get_or_post(f"{root}/prometheus/metrics")
        with pytest.raises(client.StatusError, match="status 404"):
            client.get_or_post(f"{root}/tokenize", {"prompt": "x"})
        with pytest.raises(EngineError, match="should not exceed max_seq_len"):
            served.chat(CHAT, Sampling(max_tokens=5000))


def test_a_field_that_it_does_not_know_is_refused_and_none_is_sent(model, tmp_path, on_path):
    with serving(model, tmp_path / "run", return_perf_metrics=False) as served:
        body = client.request(served.model, CHAT, Sampling(max_tokens=4), fields=tensorrt_llm.REQUEST_FIELDS)
        assert client.get_or_post(f"{served.url}/chat/completions", body)
        for field in ("repeat_penalty", "cache_prompt", "lora"):
            with pytest.raises(client.StatusError, match=f"(?s)status 400.*{field}.*Extra inputs are not permitted"):
                client.get_or_post(f"{served.url}/chat/completions", body | {field: 1})
        with pytest.raises(client.StatusError, match="status 404"):
            client.get_or_post(f"{client.root(served.url)}/prometheus/metrics")


def test_an_adapter_answers_where_the_request_names_it(model, tmp_path, on_path):
    adapter = write_adapter(tmp_path / "adapter", "self_attn.q_proj", rank=80)
    out = exported(Source(merged=model, base=model, adapter=adapter), LORA, tmp_path / "lora")
    with serving(out, tmp_path / "run") as served:
        assert served.chat(CHAT, Sampling(max_tokens=64)).text == fake_trtllm.ADAPTED
        plain = client.chat(served.url, "any", CHAT, Sampling(max_tokens=64), fields=tensorrt_llm.REQUEST_FIELDS)
        assert plain.text == fake_trtllm.ANSWER


def test_the_likeliest_tokens_are_known_by_their_texts_up_to_the_first_that_several_have(model, tmp_path, on_path):
    with serving(model, tmp_path / "run") as served:
        found = tensorrt_llm.next_token_logprobs(served.launch, [4, 5], 100)
        assert len(found) == 5, "20 are the most that this server tells, so it is asked for 5"
        assert list(found.values()) == sorted(found.values(), reverse=True)
        first = Tokenizer.from_file(str(model / "tokenizer.json")).encode(fake_trtllm.ANSWER).ids[0]
        assert next(iter(found)) == first
    known = _chat_tokens.ids_of_texts(model)
    assert "�" not in known


def test_another_template_than_that_of_training_is_not_ready(model, tmp_path, on_path):
    expected = contract(model)
    (model / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    with (
        pytest.raises(EngineError, match=r"(?s)chat template is not the one.*other tokens.*counts \d+ prompt tokens"),
        serving(model, tmp_path / "run", expected),
    ):
        pass


def test_a_machine_without_a_gpu_is_one_clear_error(model, tmp_path, on_path, monkeypatch):
    monkeypatch.setenv("FAKE_GPUS", "0")
    message = "ended with exit code 1 before it was ready; No GPU devices found: no NVIDIA GPU is visible"
    with pytest.raises(EngineError, match=message), serving(model, tmp_path / "run"):
        pass


def test_an_option_that_another_version_does_not_know_is_named(model, tmp_path, on_path, monkeypatch):
    written = tensorrt_llm.files
    monkeypatch.setattr(
        tensorrt_llm, "files", lambda *asked: {name: f"{text}old: 1\n" for name, text in written(*asked).items()}
    )
    with pytest.raises(EngineError, match="; old: this version does not know the option"), serving(model, tmp_path):
        pass


@contextmanager
def hanging(served: Running) -> Iterator[list[str]]:
    """A request that the server has and does not answer; its text or its error, once the block has ended it."""
    ended: list[str] = []

    def ask() -> None:
        try:
            ended.append(served.chat([{"role": "user", "content": "HANG"}], Sampling(max_tokens=64)).text)
        except EngineError as error:
            ended.append(error.message)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_for((served.launch.model / "asked").exists)
    yield ended
    asking.join(30)


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_request_that_hangs_does_not_keep_the_engine_from_being_stopped(model, tmp_path, on_path, monkeypatch):
    monkeypatch.setattr(tensorrt_llm, "STOP_GRACE_S", 0.5)
    with serving(model, tmp_path / "run") as served, hanging(served) as ended:
        assert served.process.stop() == 128 + 9, "SIGTERM waits for the request without a limit, SIGKILL does not"
    assert "did not answer" in ended[0]
    assert "Waiting for connections to close" in served.process.last_lines()


def test_a_request_in_flight_is_answered_before_the_engine_ends(model, tmp_path, on_path):
    with serving(model, tmp_path / "run") as served, hanging(served) as ended:
        stopping = threading.Thread(target=served.process.stop)
        stopping.start()
        wait_for(lambda: "Waiting for connections to close" in served.process.last_lines())
        (model / "released").touch()
        stopping.join(30)
    assert ended == [fake_trtllm.ANSWER]


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_a_benchmark_sends_nothing_that_it_refuses_and_measures_the_adapter(model, tmp_path, on_path, endpoint):
    adapter = write_adapter(tmp_path / "adapter", "self_attn.q_proj")
    out = exported(Source(merged=model, base=model, adapter=adapter), LORA, tmp_path / "lora")
    with (
        serving(out, tmp_path / "run") as served,
        targets.server("trt", served.url, model=served.model, endpoint=endpoint, request_fields=served.fields) as ready,
    ):
        found = ready.server
        assert (found.engine, found.engine_version, found.tokenize) == ("tensorrt_llm", fake_trtllm.VERSION, None)
        sampling = bodies.Sampling(endpoint, found.model, 16, 0.0, found.accepts_ignore_eos, found.request_fields)
        talk = Talk((Turn(0, output_tokens=40),), lambda: CHAT)
        (request,) = bodies.Requests([talk], None, None, sampling)
        stream = client.get_or_post(f"{served.url}{probe.PATHS[endpoint]}", json.loads(request.body))
        assert '"completion_tokens": 40' in stream
        assert found.says_done == stream.endswith("data: [DONE]\n\n")
        said = "".join(re.findall(r'"(?:content|text)": "([^"]*)"', stream))
        assert said.startswith(fake_trtllm.ADAPTED)
