"""Against llama.cpp's real server: what its usage says is what the workload asked for."""

import re

import pytest

from orchestrator.engines import client
from orchestrator.engines.base import Source
from orchestrator.errors import InputError
from orchestrator.loadgen.drive import measure
from orchestrator.loadgen.load import Load
from orchestrator.loadgen.probe import probe
from orchestrator.loadgen.record import failure
from orchestrator.loadgen.workload.config import Workload, build
from tests.engines.tiny_gguf import export, serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    pytest.importorskip("torch")
    from tests import tiny_model

    folder = tmp_path_factory.mktemp("engine")
    made = export(Source(merged=tiny_model.build_base(folder / "base")), "F16", folder)
    with serving(made, folder) as served:
        yield client.root(served.url)


def records_of(url, workload, folder, **given):
    server = probe(url)
    prepared = build(Workload.model_validate(workload), server, seed=1, mode="closed", **given)
    load = Load(url=server.url, path=prepared.path, concurrency=2, num_requests=len(prepared.requests), timeout_s=60)
    records = measure(load, prepared.requests, directory=folder).records
    assert {failure(record) for record in records} == {None}
    wanted = {turn.prompt: turn for talk in prepared.requests.talks for turn in talk.turns}
    return prepared, [(record, wanted[record.prompt]) for record in records]


def test_the_server_is_recognised(url):
    server = probe(url)
    assert (server.engine, server.model, server.endpoint) == ("llama_cpp", "tiny@1", "chat")
    assert server.max_model_len == 256
    assert re.match(r"b\d+", server.engine_version)
    assert server.accepts_ignore_eos
    assert server.template_tokens > 0
    with pytest.raises(InputError, match="has no model 'tiny'; it has tiny@1"):
        probe(url, model="tiny")


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_prompts_and_answers_have_the_wanted_tokens(url, tmp_path, endpoint):
    spec = {"input_tokens": {"uniform": [70, 200]}, "output_tokens": {"uniform": [2, 9]}}
    prepared, found = records_of(url, {"synthetic": spec, "endpoint": endpoint}, tmp_path, num_requests=24)
    assert prepared.facts["input_exact"], prepared.facts
    assert prepared.facts["input_residual"] == "none"
    assert [record.prompt_tokens for record, _ in found] == [turn.input_tokens for _, turn in found]
    assert [record.completion_tokens for record, _ in found] == [turn.output_tokens for _, turn in found]


def test_shared_prefixes_hit_the_cache_and_nonces_do_not(url, tmp_path):
    spec = {"input_tokens": 100, "output_tokens": 2}
    _, alone = records_of(url, {"synthetic": spec}, tmp_path / "a", num_requests=12)
    _, shared = records_of(url, {"synthetic": spec, "shared_prefix": {"tokens": 100}}, tmp_path / "b", num_requests=12)
    overhead = 40  # the template's beginning, and what two nonces have in common
    assert all(record.cached_tokens <= overhead for record, _ in alone)
    assert all(record.prompt_tokens == 200 for record, _ in shared)
    assert sum(record.cached_tokens >= 100 for record, _ in shared) >= 10


def test_sessions_go_on_with_the_models_own_answers(url, tmp_path):
    spec = {"input_tokens": 60, "output_tokens": 4}
    _, found = records_of(url, {"synthetic": spec, "turns": 2}, tmp_path, num_requests=8)
    second = [record for record, turn in found if record.turn == 1]
    assert len(second) == 4
    assert all(record.prompt_tokens > 120 and record.cached_tokens > 0 for record in second)
