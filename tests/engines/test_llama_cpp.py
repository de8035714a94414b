"""llama.cpp: its command line without a server, and the wheel's real server on a tiny model."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.engines import _llama_cpp_source as source
from orchestrator.engines import client, llama_cpp, running
from orchestrator.engines.base import Launch, Source, Tools
from orchestrator.engines.client import Sampling
from orchestrator.engines.running import Running
from orchestrator.environments.environment import OWN
from orchestrator.environments.site import Site
from orchestrator.errors import EngineError, InputError

LAUNCH = Launch(Path("m"), "tiny@1", "127.0.0.1", 1, Path("."), OWN)
CHAT = [{"role": "user", "content": "Name it: free of charge"}]


def test_a_server_on_path_is_preferred_and_gets_the_same_options(tmp_path, monkeypatch):
    of_wheel = llama_cpp.command(LAUNCH, llama_cpp.Options())
    program = tmp_path / "llama-server"
    program.write_text("#!/bin/sh\necho 'version: 7 (abc)' >&2\necho built >&2\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    of_path = llama_cpp.command(LAUNCH, llama_cpp.Options())
    assert of_path[0] == str(program)
    assert of_path[1:] == of_wheel[3:]


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


def test_waiting_threads_leave_the_cores_to_others_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert llama_cpp.environment(LAUNCH, llama_cpp.Options()) == {"OMP_WAIT_POLICY": "passive"}
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert llama_cpp.environment(LAUNCH, llama_cpp.Options()) == {"OMP_WAIT_POLICY": "active"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Q4_K_M", "quantization Q4_K_M is not available yet: it needs llama-quantize; now: F32, F16, BF16, Q8_0"),
        ("IQ4_XS", "quantization IQ4_XS is not available yet"),
        ("q8_0", "unknown quantization 'q8_0'; did you mean 'Q8_0'?"),
        ("Q4_KM", "unknown quantization 'Q4_KM'; did you mean 'Q4_K_M'?"),
    ],
)
def test_a_quantization_that_cannot_be_made_says_why(name, reason):
    support = llama_cpp.supports(name, None)
    assert not support.ok
    assert support.reason.startswith(reason)


def test_the_tree_of_the_converter_is_taken_out_of_the_archive_and_nothing_else(tmp_path):
    import io
    import tarfile

    archive, root = tmp_path / "a.tar.gz", f"llama_cpp_python-{source.VERSION}"
    with tarfile.open(archive, "w:gz") as out:
        for name in ("vendor/llama.cpp/convert_hf_to_gguf.py", "vendor/llama.cpp/gguf-py/gguf/x.py", "setup.py"):
            entry = tarfile.TarInfo(f"{root}/{name}")
            out.addfile(entry, io.BytesIO())
    folder = source.extract(archive, tmp_path / "tree")
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert found == ["convert_hf_to_gguf.py", "gguf-py/gguf/x.py"]


def test_a_converter_that_is_there_is_not_fetched_again(tmp_path):
    script = tmp_path / "tools" / f"llama.cpp-{source.VERSION}" / source.SCRIPT
    script.parent.mkdir(parents=True)
    script.write_text("")
    assert source.ensure_converter(tmp_path) == script


def test_a_converter_that_cannot_be_fetched_says_how_to_go_on(tmp_path, monkeypatch):
    from orchestrator.errors import InfrastructureError

    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(InfrastructureError, match="could not be fetched by pip") as caught:
        source.ensure_converter(tmp_path)
    assert "pip config list" in str(caught.value.next_step)
    assert not (tmp_path / "tools" / f"llama.cpp-{source.VERSION}").exists()


def test_metrics_of_the_server_are_read():
    text = (
        "# HELP x y\nllamacpp:requests_processing 2\nllamacpp:requests_deferred 1\nllamacpp:tokens_predicted_total 40\n"
    )
    found = llama_cpp.parse_metrics(text)
    assert (found.running, found.waiting, found.generated_tokens_total) == (2, 1, 40)
    assert found.kv_cache_usage is None


OPTIONS = llama_cpp.Options(n_ctx=512, parallel=2, threads=1)


def tools(folder: Path) -> Tools:
    """What an export of these tests may use: no worker."""
    return Tools(Site(source.home()), folder / "log", worker=None, say=print)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory) -> Path:
    pytest.importorskip("torch")
    from tests import tiny_model

    folder = tmp_path_factory.mktemp("engine")
    base, out = tiny_model.build_base(folder / "base"), folder / "export"
    out.mkdir()
    llama_cpp.export(Source(merged=base), "F16", out, tools(folder))
    return out


@contextmanager
def serving(model: Path, folder: Path) -> Iterator[Running]:
    with running.engine(
        "llama_cpp", model, OPTIONS, alias="tiny@1", directory=folder, site=Site(source.home())
    ) as served:
        yield served


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
def test_a_model_that_cannot_be_converted_says_the_converters_reason(tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["NoSuchModel"], "model_type": "none"}))
    with pytest.raises(InputError, match="NoSuchModel"):
        llama_cpp.export(Source(merged=tmp_path), "F16", tmp_path, tools(tmp_path))
