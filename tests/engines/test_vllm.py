"""vLLM without its server: command lines, exports of adapters, what is served where, what its logs say.

The logs are excerpts of real ones, but for those that need a GPU or an old CPU: these are vLLM's own messages.
"""

import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest

from orchestrator.catalog.catalog import load
from orchestrator.engines import _adapter, _adapter_base, _vllm_formats, _vllm_lora, vllm
from orchestrator.engines.base import LORA, Adapter, Launch, Source, Tools
from orchestrator.environments.environment import Installed
from orchestrator.environments.site import Site
from orchestrator.errors import InputError
from orchestrator.planner.serving.formats import weight_format

INSTALLED = Installed(name="vllm", version="0.32.0", where="path")


def launch(model: Path, **options: Any) -> Launch:
    return Launch(model, "legal@3", "127.0.0.1", 8000, model / "run", INSTALLED, vllm.Options(**options))


def command(model: Path, **options: Any) -> str:
    return " ".join(vllm.command(launch(model), vllm.Options(**options)))


def weights(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file with these tensors, all zero."""
    header, size = {}, 0
    for name, shape in shapes.items():
        length = 4 * shape[0] * shape[1]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [size, size + length]}
        size += length
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))


def base(folder: Path, *, width: int = 64, layers: int = 2) -> Path:
    weights(folder / "model.safetensors", {f"model.layers.{n}.mlp.up_proj.weight": (128, width) for n in range(layers)})
    (folder / "config.json").write_text('{"dtype": "bfloat16"}')
    return folder


def adapter(folder: Path, *, width: int = 64, layers: int = 2, **settings: Any) -> Path:
    rank, shapes = settings.get("r", 8), {}
    for n in range(layers):
        module = f"base_model.model.model.layers.{n}.mlp.up_proj"
        shapes |= {f"{module}.lora_A.weight": (rank, width), f"{module}.lora_B.weight": (128, rank)}
    weights(folder / _adapter.WEIGHTS, shapes)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 16, "base_model_name_or_path": "hub/name", **settings}
    (folder / _adapter.CONFIG).write_text(json.dumps(config))
    return folder


def merged(folder: Path) -> Path:
    base(folder)
    (folder / "generation_config.json").write_text('{"eos_token_id": [5, 7], "temperature": 0.6, "top_p": 0.9}')
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


def exported(folder: Path, **settings: Any) -> Path:
    """An adapter's export."""
    source = Source(merged(folder / "merged"), base=base(folder / "base"), adapter=adapter(folder / "a", **settings))
    out = folder / "export"
    out.mkdir()
    vllm.export(source, LORA, out, tools(folder))
    return out


def tools(folder: Path) -> Tools:
    return Tools(Site(folder), folder / "log", worker=None, say=print, shared=folder)  # type: ignore[arg-type]  # none is needed


def test_the_command_listens_on_loopback_drains_and_takes_no_sampling_defaults_from_the_model(tmp_path):
    line = command(merged(tmp_path / "m"), max_model_len=4096, kv_cache_dtype="fp8", enforce_eager=True)
    assert line.startswith(f"vllm serve {tmp_path}/m --host 127.0.0.1 --port 8000 --served-model-name legal@3")
    for part in ("--generation-config vllm", "--shutdown-timeout 20", "--max-logprobs 200", "--max-model-len 4096"):
        assert part in line
    flags = "--enable-scale-out --disable-uvicorn-access-log --enable-prompt-tokens-details"
    assert line.endswith(f"{flags} --enable-prefix-caching --enforce-eager")
    assert "quantization" not in line, "a checkpoint says it itself, and a mismatch is an error"


def test_float32_is_served_as_such_only_where_it_was_exported(tmp_path):
    model = merged(tmp_path / "m")
    assert "--dtype auto" in command(model)
    (model / "config.json").write_text('{"dtype": "float32"}')
    assert "--dtype float32" in command(model)
    assert "--dtype bfloat16" in command(model, dtype="bfloat16")


def test_an_adapter_is_served_on_its_base_with_the_tokenizer_and_end_tokens_of_its_training(tmp_path):
    out = exported(tmp_path, r=4, rank_pattern={"up_proj": 20})
    line = command(out)
    assert line.startswith(f"vllm serve {tmp_path}/base ")
    for part in ("--enable-lora", "--max-lora-rank 32", f"--tokenizer {out}", "--served-model-name legal@3-base"):
        assert part in line
    assert f"--generation-config {out}" in line
    assert json.loads((out / "generation_config.json").read_text()) == {"eos_token_id": [5, 7]}
    assert not (out / "model.safetensors").exists()
    assert vllm.environment(launch(out), vllm.Options())["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert "--max-lora-rank 64" in command(out, max_lora_rank=64)


def test_a_base_that_is_gone_or_another_one_is_said_before_the_server_starts(tmp_path):
    out = exported(tmp_path)
    base(tmp_path / "base", layers=3)
    with pytest.raises(InputError, match=r"is not the base of the adapter in .* any more"):
        command(out)
    (tmp_path / "base" / "config.json").unlink()
    with pytest.raises(InputError, match=r"is gone: .*base is not a model") as caught:
        command(out)
    assert "export the merged model" in str(caught.value.next_step)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"layers": 3}, r"it has a layer 2, and \S+ ends with layer 1"),
        ({"width": 32}, r"its layers\.0\.mlp\.up_proj is \(128, 32\), that of \S+ \(128, 64\)"),
    ],
)
def test_an_adapter_of_another_base_is_refused_though_vllm_would_load_a_deeper_one(tmp_path, other, reason):
    source = Source(merged(tmp_path / "m"), base=base(tmp_path / "base"), adapter=adapter(tmp_path / "a", **other))
    with pytest.raises(InputError, match=f"the adapter is of another base: {reason}"):
        vllm.export(source, LORA, tmp_path, tools(tmp_path))


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({"use_dora": True}, "with DoRA"),
        ({"bias": "lora_only"}, "with bias 'lora_only'"),
        ({"modules_to_save": ("lm_head", "score")}, r"trained as a whole \(lm_head\)"),
        ({"resized_vocabulary": True}, "a vocabulary that was resized"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights 'pissa_niter_4', which changed the base"),
        ({"variants": ("layer_replication",)}, "with layer_replication"),
        ({"rank": 640}, "with rank 640: 512 is the largest"),
    ],
)
def test_what_vllm_cannot_apply_is_refused_unmerged_with_what_would_do(found, reason):
    trained = Adapter(**{"rank": 8, "alpha": 8, **found})
    (text,) = vllm.refuses(trained, LORA)
    assert re.search(reason, text)
    assert text.endswith("export the merged model instead, such as quantization BF16")
    assert vllm.refuses(trained, "BF16") == []


def test_any_other_adapter_is_served():
    fine = Adapter(
        rank=512, alpha=8, use_rslora=True, init_lora_weights="gaussian", alpha_pattern=True, rank_pattern=True
    )
    assert vllm.refuses(fine, LORA) == []


def test_full_fine_tuning_leaves_no_adapter_to_serve(tmp_path):
    with pytest.raises(InputError, match="there is no adapter to serve"):
        vllm.export(Source(tmp_path), LORA, tmp_path, tools(tmp_path))


def test_a_calibrated_format_needs_training_chats(tmp_path):
    with pytest.raises(InputError, match="quantization INT8 is calibrated on the training chats") as caught:
        vllm.export(Source(tmp_path), "INT8", tmp_path, tools(tmp_path))
    assert "FP8" in str(caught.value.next_step)


@pytest.mark.parametrize(("kind", "where"), [("cpu", "cpu"), ("cuda", "cuda"), ("rocm", "cpu")])
def test_llm_compressor_quantizes_in_its_own_environment_and_on_the_cpu_where_it_has_none(tmp_path, kind, where):
    asked: list[Any] = []

    class Node(Site):
        def ensure(self, environment):
            return Installed(name=environment.name, version=self.kind, where="environment", folder=tmp_path / self.kind)

    def work(name, request, *, python=None):
        asked.append((name, request, python))
        return {}

    program = tmp_path / where / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.touch()
    source = Source(tmp_path / "m", rows=tmp_path / "rows.jsonl", seed=3)
    vllm.export(source, "fp8", tmp_path, Tools(Node(tmp_path, kind), tmp_path / "log", work, print, tmp_path))
    vllm.export(source, "w8a8", tmp_path, Tools(Node(tmp_path, kind), tmp_path / "log", work, print, tmp_path))
    (name, fp8, python), (_, int8, _) = asked
    assert (name, python) == ("quantize_llm_compressor", [str(program)])
    assert (fp8["quantization"], fp8["rows"]) == ("FP8", None), "dynamic scales need no calibration"
    assert (int8["quantization"], int8["rows"], int8["seed"]) == ("INT8", str(tmp_path / "rows.jsonl"), 3)


def test_weights_of_the_wanted_format_are_linked_and_outlive_the_merged_folder(tmp_path):
    source, out = Source(merged(tmp_path / "m")), tmp_path / "out"
    out.mkdir()
    vllm.export(source, "BF16", out, tools(tmp_path))
    assert (out / "model.safetensors").samefile(tmp_path / "m" / "model.safetensors")
    (tmp_path / "m" / "model.safetensors").unlink()
    assert (out / "model.safetensors").stat().st_size > 0


@pytest.mark.parametrize(
    ("word", "name"),
    [("fp8", "FP8"), ("fp8_dynamic", "FP8"), ("w8a8", "INT8"), ("W4A16", "GPTQ"), ("awq", "AWQ"), ("Lora", LORA)],
)
def test_formats_are_known_by_the_words_that_people_use(word, name):
    assert _vllm_formats.canonical(word) == name


def test_the_planner_knows_the_bits_of_every_word():
    words = [word for word, name in _vllm_formats.ALIASES.items() if name != LORA]
    assert {weight_format(word).bits for word in words} == {4.156, 4.5, 8, 16, 32}


@pytest.mark.parametrize(
    ("name", "flags", "ok"),
    [
        ("FP8", {"avx2"}, True),
        ("INT8", {"avx2"}, True),
        ("GPTQ", {"avx2"}, False),
        ("AWQ", {"avx2", "avx512f"}, True),
        ("NVFP4", {"avx2", "avx512f"}, False),
    ],
)
def test_what_a_cpu_can_compute_depends_on_its_instructions(name, flags, ok):
    assert (_vllm_formats.on_cpu(name, frozenset(flags)) is None) is ok


def test_what_a_gpu_can_compute_is_the_planners_knowledge():
    found = {gpu.kind: gpu for gpu in load().gpus}
    assert "use fp8" in vllm.supports("INT8", found["B200"]).reason
    assert vllm.supports("INT8", found["H100"]).ok
    assert not vllm.supports("NVFP4", found["MI300X"]).ok
    assert all(vllm.supports(LORA, gpu).ok for gpu in found.values())


def test_variables_keep_the_engine_offline_and_two_of_them_on_one_machine(tmp_path, monkeypatch):
    for name in ("VLLM_CPU_KVCACHE_SPACE", "VLLM_CPU_OMP_THREADS_BIND", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    found = vllm.environment(launch(tmp_path), vllm.Options())
    assert found["VLLM_NO_USAGE_STATS"] == found["HF_HUB_OFFLINE"] == "1"
    assert (found["VLLM_HOST_IP"], found["OMP_WAIT_POLICY"]) == ("127.0.0.1", "passive")
    assert (found["VLLM_CPU_OMP_THREADS_BIND"], found["VLLM_CPU_KVCACHE_SPACE"]) == ("nobind", "4")
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0-31")
    found = vllm.environment(launch(tmp_path), vllm.Options(kv_cache_memory_bytes=2**30))
    assert found["VLLM_CPU_OMP_THREADS_BIND"] == "0-31"
    assert "VLLM_CPU_KVCACHE_SPACE" not in found, "it would count more than the option"


def test_planning_reads_the_options_by_its_own_names():
    options = vllm.Options(max_model_len=4096, tensor_parallel_size=2, kv_cache_dtype="fp8", enforce_eager=True)
    found = vllm.planned(options)
    assert (found["max_model_len"], found["tensor"], found["kv_dtype"], found["cuda_graphs"]) == (4096, 2, "fp8", False)
    assert vllm.planned(vllm.options_for(100))["max_model_len"] is None


def test_room_for_an_adapter_is_the_next_rank_that_vllm_knows(tmp_path):
    folders = [adapter(tmp_path / str(rank), r=rank) for rank in (1, 4, 16, 300)]
    assert [_vllm_lora.room(launch(folder)) for folder in folders] == [1, 8, 16, 320]


def test_a_fingerprint_tells_other_weights_of_the_same_shapes(tmp_path):
    folder = base(tmp_path)
    before, path = _adapter_base.fingerprint(folder), folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    assert _adapter_base.fingerprint(folder) != before
