"""transformers' own server: its exports, its command, and the real thing on a tiny model."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.bench import targets
from orchestrator.engines import _adapter_base, client, running, transformers
from orchestrator.engines.base import LORA, Adapter, Launch, Source, Tools
from orchestrator.engines.client import Sampling
from orchestrator.engines.running import Running
from orchestrator.environments.environment import OWN
from orchestrator.environments.site import Site
from orchestrator.errors import InputError

LAUNCH = Launch(Path("/m/tiny"), "tiny@1", "127.0.0.1", 1, Path("/logs"), OWN)
CHAT = [{"role": "user", "content": "Name it: free of charge"}]


def tools(folder: Path) -> Tools:
    return Tools(Site(folder), folder / "log", worker=None, say=print, shared=folder)  # type: ignore[arg-type]  # no worker is needed


def exported(source: Source, quantization: str, out: Path) -> Path:
    out.mkdir()
    transformers.export(source, quantization, out, tools(out.parent))
    return out


def test_a_path_with_an_at_sign_is_refused_as_the_server_would_read_a_revision_in_it():
    launch = Launch(Path("/home/me@work/m"), "tiny@1", "127.0.0.1", 1, Path("/logs"), OWN)
    with pytest.raises(InputError, match="takes what follows an @ for a revision"):
        transformers.command(launch, transformers.Options())


def test_options_reach_the_command_line():
    command = transformers.command(LAUNCH, transformers.Options(device="cpu", compile=True))
    assert " ".join(command).endswith(
        "-P -m transformers.cli.transformers serve /m/tiny --host 127.0.0.1 --port 1 --device cpu"
        " --attn-implementation sdpa --compile"
    )


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        (
            "ImportError: Missing dependencies for serving. Install with",
            "needs more packages: pip install 'orch[serve]'",
        ),
        ("No module named 'torch'", "it is not installed: pip install 'orch[train]'"),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20 GiB.\n",
            "OutOfMemoryError: CUDA out of memory. Tried to allocate 20 GiB.: take a smaller model",
        ),
        (
            "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 1): address already in use",
            "another process has its port",
        ),
        ("OSError: Error no file named model.safetensors, or pytorch_model.bin, found in directory /m.", "export"),
    ],
)
def test_what_a_log_says_becomes_a_cause_with_a_remedy(log, cause):
    assert cause in (transformers.diagnose(f"Traceback\n{log}\nmore") or "")


def test_adapters_that_would_be_loaded_wrongly_are_refused_and_any_other_is_served():
    plain = Adapter(rank=8, alpha=8, use_rslora=True, modules_to_save=("lm_head",), bias="all", alpha_pattern=True)
    assert transformers.refuses(plain, LORA) == []
    changed = Adapter(rank=8, alpha=8, use_dora=True, init_lora_weights="pissa_niter_4", resized_vocabulary=True)
    assert len(transformers.refuses(changed, LORA)) == 3
    assert all("export the merged model instead" in reason for reason in transformers.refuses(changed, LORA))
    assert transformers.refuses(changed, "BF16") == []


def test_there_is_no_adapter_to_serve_after_full_fine_tuning(tmp_path):
    with pytest.raises(InputError, match="the whole model was trained"):
        exported(Source(merged=tmp_path), LORA, tmp_path / "out")


def tuned(base: Path, folder: Path, **settings: Any) -> Source:
    """An adapter with other weights than new ones, and the model that it makes of its base."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(5)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", **settings)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data += torch.randn_like(weight) * 0.1
    model.save_pretrained(folder / "adapter")
    model.merge_and_unload().save_pretrained(folder / "merged")
    AutoTokenizer.from_pretrained(base).save_pretrained(folder / "merged")
    return Source(merged=folder / "merged", base=base, adapter=folder / "adapter")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    pytest.importorskip("torch")
    from tests import tiny_model

    return tiny_model.build_base(tmp_path_factory.mktemp("transformers") / "base")


@pytest.fixture(scope="module")
def source(base) -> Source:
    """With rank-stabilized scaling."""
    return tuned(base, base.parent, use_rslora=True)


@pytest.mark.slow
def test_an_export_is_loaded_in_its_number_format(source, tmp_path):
    from transformers import AutoModelForCausalLM

    out = exported(source, "BF16", tmp_path / "bf16")
    assert str(AutoModelForCausalLM.from_pretrained(out, dtype="auto").dtype) == "torch.bfloat16"
    assert json.loads((source.merged / "config.json").read_text())["dtype"] == "float32"


@pytest.mark.slow
def test_an_adapter_is_applied_to_its_base_as_peft_does_it(source, tmp_path):
    served, merged, of_base = logits(exported(source, LORA, tmp_path / "lora"), source.merged, source.base)
    assert abs(served - merged).max() < 1e-3
    assert abs(served - of_base).max() > 0.1


@pytest.mark.slow
def test_dora_is_refused_for_as_long_as_transformers_loads_it_wrongly(base, tmp_path):
    source = tuned(base, tmp_path, use_dora=True)
    with pytest.raises(InputError, match="loads a DoRA adapter wrongly"):
        exported(source, LORA, tmp_path / "lora")
    out = tmp_path / "lora"
    _adapter_base.lay_out(source, out, out, lambda *_: [], tools(tmp_path))
    served, merged = logits(out, source.merged)
    assert abs(served - merged).max() > 0.1, "it is loaded rightly now: `refuses` may let it pass"


def logits(*folders: Path) -> list[Any]:
    """Of the same tokens, as transformers loads these folders; a row for each."""
    import torch
    from transformers import AutoModelForCausalLM

    ids = torch.arange(4, 40)[None]
    return [AutoModelForCausalLM.from_pretrained(folder)(ids).logits.detach() for folder in folders]


@contextmanager
def serving(model: Path, folder: Path) -> Iterator[Running]:
    options = transformers.Options(device="cpu")
    with running.engine("transformers", model, options, alias="tiny@1", directory=folder, site=Site(folder)) as served:
        yield served


@pytest.mark.slow
def test_the_real_server_serves_an_adapter_and_says_what_it_is_pinned_to(source, tmp_path):
    for needed in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(needed)
    model = exported(source, LORA, tmp_path / "lora")
    with serving(model, tmp_path / "run") as served:
        assert transformers.models(served.launch) == [str(model)]
        listed = {entry["id"] for entry in json.loads(client.get_or_post(f"{served.url}/models"))["data"]}
        assert listed <= {str(model)}, "none of the hub's cache; the pinned model itself since transformers 5.24"
        greedy = served.chat(CHAT, Sampling(max_tokens=12))
        assert greedy == served.chat(CHAT, Sampling(max_tokens=12))
        ids = transformers.prompt_tokens(served.launch, CHAT)
        assert ids is not None
        assert len(ids) == greedy.prompt_tokens
        drawn = {served.chat(CHAT, Sampling(max_tokens=12, temperature=5.0)).text for _ in range(4)}
        assert len(drawn) > 1, "a temperature draws, though the model's own settings do not"
        body = client.request("another", CHAT, Sampling(max_tokens=1), fields=transformers.REQUEST_FIELDS)
        with pytest.raises(client.StatusError, match=re.escape("requested 'another'")):
            client.get_or_post(f"{served.url}/chat/completions", body)
        with targets.server("hf", served.url, model=served.model, request_fields=served.fields) as ready:
            assert not ready.server.says_done
            assert not ready.server.accepts_ignore_eos
        assert served.process.stop() == 143, "SIGTERM ended it, not the SIGKILL after the grace period"
