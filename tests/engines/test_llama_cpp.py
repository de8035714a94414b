"""llama.cpp: its command line without a server, and the real server on a tiny model."""

import dataclasses
import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from orchestrator.catalog import catalog
from orchestrator.engines import _llama_cpp_environments as environments
from orchestrator.engines import _llama_cpp_record as records
from orchestrator.engines import client, llama_cpp
from orchestrator.engines.base import LORA, Adapter, Launch, Source
from orchestrator.engines.client import Sampling
from orchestrator.environments.container import Container
from orchestrator.environments.environment import OWN, Installed
from orchestrator.errors import EngineError, InputError
from tests.engines.test_client import engine
from tests.engines.tiny_gguf import CHAT, changed, export, serving, set_config, set_field

LAUNCH = Launch(Path("m"), "tiny@1", "127.0.0.1", 1, Path("."), OWN)


def installed(folder: Path, *programs: str) -> Installed:
    """An environment with these programs."""
    (folder / "bin").mkdir(parents=True)
    for name in programs:
        (folder / "bin" / name).touch()
    return Installed(name="llama_cpp", version="1", where="environment", folder=folder)


def test_the_wheels_server_is_run_by_the_python_of_its_environment(tmp_path):
    found = installed(tmp_path / "llama_cpp-1-cpu", "python")
    script = Path(llama_cpp.__file__).parent.parent / "workers" / "llama_server.py"
    assert environments.server(found) == [str(tmp_path / "llama_cpp-1-cpu" / "bin" / "python"), "-P", str(script)]
    assert script.exists()


def test_a_server_that_was_built_or_lies_on_path_is_a_program(tmp_path):
    built = installed(tmp_path / "llama_cpp-1-cuda", "llama-server")
    assert environments.server(built) == [str(tmp_path / "llama_cpp-1-cuda" / "bin" / "llama-server")]
    there = Installed(name="llama_cpp", version="7", where="path", folder=tmp_path / "llama_cpp-1-cuda")
    assert environments.server(there) == environments.server(built)


def test_a_container_runs_the_program_of_the_published_image():
    container = Container(runtime="docker", image="x:server", kind="cuda", home=Path("/home"))
    folder = Path(environments.SERVER.programs_in_image or "")
    found = Installed(name="llama_cpp", version="server", where="container", folder=folder, container=container)
    assert environments.server(found)[-1] == "/app/llama-server"


def test_code_is_built_for_the_accelerators_that_are_planned_for():
    for environment in (environments.SERVER, environments.TOOLS):
        assert "-DCMAKE_CUDA_ARCHITECTURES=80;90;100" in environment.kinds["cuda"].options
        assert "gfx942" in " ".join(environment.kinds["rocm"].options)
    assert "llama-server" in environments.SERVER.kinds["rocm"].targets


def test_options_reach_the_command_line_under_the_engines_names():
    options = llama_cpp.Options(n_ctx=4096, parallel=2, threads=3, cache_type_k="q8_0", n_gpu_layers=10)
    command = " ".join(llama_cpp.command(LAUNCH, options))
    for part in (
        "--ctx-size 4096",
        "--parallel 2",
        "--threads 3",
        "--cache-type-k q8_0",
        "--n-gpu-layers 10",
        "--fit off",
    ):
        assert part in command


def test_an_adapter_stands_on_the_command_line_once_it_is_there_or_planned(tmp_path):
    options = llama_cpp.Options()
    planned = dataclasses.replace(LAUNCH, model=tmp_path, adapter=Adapter(rank=8, alpha=8))
    there = dataclasses.replace(LAUNCH, model=tmp_path)
    assert "--lora" not in llama_cpp.command(there, options)
    (tmp_path / "adapter.gguf").touch()
    assert f"--lora {tmp_path}/adapter.gguf" in " ".join(llama_cpp.command(there, options))
    assert llama_cpp.command(planned, options) == llama_cpp.command(there, options)


def test_waiting_threads_leave_the_cores_to_others_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert llama_cpp.environment(LAUNCH, llama_cpp.Options()) == {"OMP_WAIT_POLICY": "passive"}
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert llama_cpp.environment(LAUNCH, llama_cpp.Options()) == {"OMP_WAIT_POLICY": "active"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("q8_0", "unknown quantization 'q8_0'; did you mean 'Q8_0'?"),
        ("Q4_KM", "unknown quantization 'Q4_KM'; did you mean 'Q4_K_M'?"),
    ],
)
def test_an_unknown_quantization_comes_with_the_nearest_name(name, reason):
    support = llama_cpp.supports(name, None)
    assert not support.ok
    assert support.reason.startswith(reason)


@pytest.mark.parametrize("kind", ["H100", "A100-80GB", "MI300X", "RTX-4090"])
def test_a_gpu_runs_every_type_but_the_ternary_ones(kind):
    gpu = catalog.load().gpu(kind)
    refused = [name for name in llama_cpp.QUANTIZATIONS if not llama_cpp.supports(name, gpu).ok]
    assert refused == ["TQ2_0", "TQ1_0"]
    assert "CPUs only" in llama_cpp.supports("TQ1_0", gpu).reason


@pytest.mark.parametrize(
    ("trained", "reason"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ("lm_head", "score")}, "whole modules were trained: lm_head, score"),
        ({"resized_vocabulary": True}, "the vocabulary was resized"),
        ({"bias": "all"}, "biases were trained: all"),
        ({"alpha_pattern": True}, "an alpha of their own"),
        ({"use_rslora": True, "rank_pattern": True}, "rsLoRA with ranks by module"),
        ({"variants": ("lora_bias",)}, "more than a product of two matrices: lora_bias"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4 changed the base's weights"),
        ({"init_lora_weights": "loftq"}, "loftq changed the base's weights"),
    ],
)
def test_an_adapter_that_gguf_cannot_hold_is_refused_at_run_time_and_can_be_merged(trained, reason):
    adapter = Adapter(rank=8, alpha=16, **trained)
    (told,) = llama_cpp.refuses(adapter, LORA)
    assert reason in told
    assert "export the merged model" in told
    assert llama_cpp.refuses(adapter, "Q4_K_M") == []


@pytest.mark.parametrize("trained", [{}, {"use_rslora": True}, {"rank_pattern": True}, {"init_lora_weights": "eva"}])
def test_an_adapter_that_gguf_can_hold_is_not_refused(trained):
    assert llama_cpp.refuses(Adapter(rank=8, alpha=16, **trained), LORA) == []


def test_metrics_of_the_server_are_read():
    text = (
        "# HELP x y\nllamacpp:requests_processing 2\nllamacpp:requests_deferred 1\nllamacpp:tokens_predicted_total 40\n"
    )
    found = llama_cpp.parse_metrics(text)
    assert (found.running, found.waiting, found.generated_tokens_total) == (2, 1, 40)
    assert found.kv_cache_usage is None


@pytest.mark.parametrize(("trained", "problem"), [(4096, True), (512, False)])
def test_a_context_that_was_cut_is_noticed_unless_the_model_has_no_more(tmp_path, trained, problem):
    props = {"model_path": str(tmp_path / llama_cpp.MODEL), "default_generation_settings": {"n_ctx": 512}}
    listed = {"data": [{"id": "tiny@1", "meta": {"n_ctx_train": trained}}]}
    with engine(lambda path: (200, props if path == "/props" else listed)) as url:
        options = llama_cpp.Options(n_ctx=4096, parallel=2)
        launch = Launch(tmp_path, "tiny@1", "127.0.0.1", urlsplit(url).port or 0, tmp_path, OWN, options)
        told = pytest.raises(EngineError, match="a request gets 512 tokens of context, not 2048")
        with told if problem else nullcontext():
            llama_cpp.attach(launch)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    pytest.importorskip("torch")
    from tests import tiny_model

    return tiny_model.build_base(tmp_path_factory.mktemp("engine") / "base")


@pytest.fixture(scope="module")
def gguf(base, tmp_path_factory) -> Path:
    return export(Source(merged=base), "F16", tmp_path_factory.mktemp("exports"))


@pytest.mark.slow
def test_a_server_is_ready_once_it_generated_and_then_tells_what_it_does(gguf, tmp_path):
    with serving(gguf, tmp_path) as served:
        answer = served.chat(CHAT, Sampling(max_tokens=3))
        assert (answer.finish_reason, answer.completion_tokens) == ("length", 3)
        ids = llama_cpp.prompt_tokens(served.launch, CHAT)
        assert len(ids) == answer.prompt_tokens
        likeliest = llama_cpp.next_token_logprobs(served.launch, ids, 5)
        assert len(likeliest) == 5
        assert all(logprob <= 0 for logprob in likeliest.values())
        assert "<|im_start|>" in llama_cpp.chat_template(served.launch)
        metrics = client.get_or_post(f"{client.root(served.url)}/metrics")
        assert llama_cpp.parse_metrics(metrics).generated_tokens_total >= 5
        assert served.process.stop() == 143, "SIGTERM ended it, not the SIGKILL after the grace period"


@pytest.mark.slow
def test_every_token_has_probabilities_even_where_the_likeliest_is_half_a_character(gguf, tmp_path):
    with serving(gguf, tmp_path) as served:
        found = [llama_cpp.next_token_logprobs(served.launch, [4, token], 3) for token in range(6, 140)]
        assert [len(likeliest) for likeliest in found] == [3] * len(found)


@pytest.mark.slow
def test_a_request_longer_than_a_slot_is_an_error_and_the_server_lives_on(gguf, tmp_path):
    with serving(gguf, tmp_path) as served:
        with pytest.raises(EngineError, match="exceed_context_size_error"):
            served.chat([{"role": "user", "content": "any person " * 300}], Sampling(max_tokens=1))
        assert served.chat(CHAT, Sampling(max_tokens=1)).completion_tokens == 1


@pytest.mark.slow
def test_another_file_than_the_exported_one_is_not_served(base, gguf, tmp_path):
    """The record says F16; a file that was quantized otherwise answers just as readily."""
    other, wrong = export(Source(merged=base), "Q8_0", tmp_path), changed(gguf, tmp_path / "wrong")
    shutil.copy(other / llama_cpp.MODEL, wrong)
    with pytest.raises(EngineError, match="its quantization is Q8_0, not F16"), serving(wrong, tmp_path):
        pytest.fail("it was served")
    (wrong / records.FILE).unlink()
    with serving(wrong, tmp_path) as served:
        assert served.chat(CHAT, Sampling(max_tokens=1)).completion_tokens == 1, "nothing else would have told"


@pytest.mark.slow
def test_a_file_that_lies_about_its_type_is_not_an_export(base, gguf, tmp_path):
    wrong = changed(gguf, tmp_path / "wrong")
    set_field(wrong / llama_cpp.MODEL, "general.file_type", 7)
    with pytest.raises(InputError, match=r"is not Q8_0: \d+ of its matrices are not in the type of Q8_0"):
        llama_cpp.check(wrong, Source(merged=base), "Q8_0")


@pytest.mark.slow
def test_a_server_of_another_file_is_not_ours(gguf, tmp_path):
    with serving(gguf, tmp_path) as served:
        elsewhere = dataclasses.replace(served.launch, model=changed(gguf, tmp_path / "elsewhere"))
        with pytest.raises(EngineError, match=r"it runs .*F16/model.gguf, not .*elsewhere/model.gguf"):
            llama_cpp.attach(elsewhere)


@pytest.mark.slow
def test_a_port_in_use_is_named(gguf, tmp_path):
    with (
        serving(gguf, tmp_path) as served,
        pytest.raises(EngineError, match=rf"port {served.launch.port} of 127\.0\.0\.1 is in use"),
        serving(gguf, tmp_path / "second", port=served.launch.port),
    ):
        pytest.fail("two servers on one port")


@pytest.mark.slow
@pytest.mark.parametrize("quantized", ["awq", "bitsandbytes"])
def test_a_checkpoint_that_the_converter_cannot_read_is_one_clear_line(base, tmp_path, quantized):
    model = changed(base, tmp_path / "model")
    set_config(model, quantization_config={"quant_method": quantized})
    with pytest.raises(InputError, match=f"Quant method is not yet supported: '{quantized}'") as caught:
        export(Source(merged=model), "F16", tmp_path)
    assert "\n" not in caught.value.message
    assert "export the merged model" in str(caught.value.next_step)


@pytest.mark.slow
def test_an_architecture_that_the_converter_does_not_know_is_named(base, tmp_path):
    model = changed(base, tmp_path / "model")
    set_config(model, architectures=["NoSuchModel"], model_type="none")
    with pytest.raises(InputError, match="NoSuchModel"):
        export(Source(merged=model), "F16", tmp_path)


def test_a_model_without_its_tokenizer_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    with pytest.raises(InputError, match=r"has no tokenizer\.json, no tokenizer_config\.json, no chat_template"):
        export(Source(merged=tmp_path), "F16", tmp_path)


@pytest.mark.slow
def test_a_vocabulary_that_the_embedding_has_not_is_refused(base, tmp_path):
    """Without SentencePiece's own file the converter writes the tokens that it finds, and no server loads them."""
    model = changed(base, tmp_path / "model")
    (model / "tokenizer.model").unlink()
    with pytest.raises(InputError, match=r"it has \d+ tokens for the 512 rows of its embedding"):
        export(Source(merged=model), "F16", tmp_path)
