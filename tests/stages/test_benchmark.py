"""The benchmark stage against real servers."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.bench.flat import metrics
from orchestrator.bench.result import Cell, Result, Search, Slo, Spread, Summary, Target
from orchestrator.clusters.cluster import Cluster
from orchestrator.environments.site import Site
from orchestrator.errors import EngineError, InputError
from orchestrator.planner.plan import Plan
from orchestrator.stages import benchmark
from orchestrator.stages.base import Context, Outputs
from orchestrator.store.store import Store
from orchestrator.testing import FakeEngine, Script, Status, answer, serving


@dataclass
class Stage:
    """Runs the stage in a folder, as part of a run."""

    folder: Path
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        row = {"messages": [{"role": "user", "content": "Which licence?"}, {"role": "assistant", "content": "MIT"}]}
        (self.folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
        plan = Plan(
            recipe="demo", path="r.yaml", directory=str(self.folder), cluster=Cluster(name="here"), accelerator=None,
            stages=[], gates=[], service="legal", obstacles=[],
        )  # fmt: skip
        Store(self.folder).create_run("r1", "demo", plan.model_dump(mode="json"), [("benchmark", "d1")])

    def context(self, inputs: dict[str, Outputs]) -> Context:
        return Context(
            home=self.folder, run="r1", digest="d1", cwd=self.folder, directory=self.folder, inputs=inputs,
            emit=self._emit, worker=lambda name, request: {}, site=Site(self.folder),
        )  # fmt: skip

    def run(self, inputs: dict[str, Outputs], **config: Any) -> Outputs:
        return benchmark.run(benchmark.Config.model_validate(config), self.context(inputs))

    def deployed(self, engine: FakeEngine, **config: Any) -> Outputs:
        """With a release of the target `gguf` on that engine."""
        report = {"engine_url": engine.url, "model": "fake", "target": "gguf", "release": "legal@2", "service": "legal"}
        inputs = {
            "data": Outputs(artifacts={"test_rows": str(self.folder / "rows.jsonl")}),
            "deploy": Outputs(report={**report, "engine": "llama_cpp", "engine_version": "b1"}),
        }
        return self.run(inputs, **{"targets": ["gguf"], "deployed": "gguf", **config})

    def _emit(self, kind: str, /, **data: Any) -> None:
        self.events.append((kind, data))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def refusing(status: int, every: int = 1) -> Script:
    """Answers the probe, and refuses each `every`-th of the other requests."""
    good, asked = answer("a"), 0

    async def script(body: dict[str, Any]) -> AsyncIterator[bytes]:
        nonlocal asked
        asked += body["max_tokens"] > 1
        if body["max_tokens"] > 1 and asked % every == 0:
            raise Status(status, {"error": {"message": "context too long"}})
        async for piece in good(body):
            yield piece

    return script


def test_measures_every_load_of_the_deployed_release(stage: Stage) -> None:
    with serving(answer("a", "b", "c")) as engine:
        outputs = stage.deployed(
            engine, concurrency=[1, 4], request_rate=[200], num_requests=20, warmup_duration=0, slo={"e2e": "10s"},
            usd_per_hour=2.0,
        )  # fmt: skip
    found, levels = outputs.metrics, outputs.report["levels"]
    for name in ("ttft", "first_chunk", "itl", "tpot", "normalized_latency", "e2e"):
        for share in ("p50", "p95", "p99"):
            key = f"{name}_{share}"
            assert found[f"gguf.{key}"] == max(found[f"gguf.{load}.{key}"] for load in ("c1", "c4", "r200"))
    assert found["gguf.tokens_per_s"] >= max(level["tokens_per_s"] for level in levels)
    assert (found["gguf.errors"], found["gguf.failed_cells"], found["gguf.goodput"]) == (0, 0, 1)
    assert found["gguf.usd_per_million_tokens"] == pytest.approx(2e6 / 3600 / found["gguf.tokens_per_s"])
    assert [level["concurrency"] for level in levels] == [1, 4]
    assert outputs.report["hardware"]["cores"] >= 1
    assert (outputs.report["engine_version"], outputs.report["release"]) == ("b1", "legal@2")
    assert sorted(data["load"] for kind, data in stage.events if kind == "level") == [
        "1 streams",
        "200 req/s",
        "4 streams",
    ]
    steps = [data["step"] for kind, data in stage.events if kind == "progress" and data["steps"] == 3]
    assert (steps[-1], steps == sorted(steps)) == (3, True)
    assert Outputs.model_validate_json(outputs.model_dump_json()) == outputs


def test_the_result_is_kept_in_the_store_and_beside_its_records(stage: Stage) -> None:
    with serving(answer("a")) as engine:
        outputs = stage.deployed(engine, concurrency=[1], num_requests=4)
    (kept,) = Store(stage.folder).benchmarks(10, service="legal")
    folder = Path(outputs.report["result"]["path"])
    assert kept["id"] == outputs.report["result"]["id"] == folder.name
    assert (kept["name"], kept["run"], kept["service"]) == ("demo", "r1", "legal")
    result = Result.model_validate_json((folder / "result.json").read_text())
    assert result.model_dump(mode="json") == kept
    assert result.targets[0].release == "legal@2"
    assert all((folder / str(cell.records)).exists() for cell in result.cells)


def test_the_held_out_rows_are_asked_unless_the_workload_says_otherwise(stage: Stage) -> None:
    with serving(answer("a")) as engine:
        stage.deployed(engine, concurrency=[1], num_requests=2)
        asked = [body["messages"][-1]["content"] for body in engine.bodies if body["max_tokens"] > 1]
    assert asked
    assert all("Which licence?" in text for text in asked)


def test_failures_are_counted_by_kind(stage: Stage) -> None:
    with serving(refusing(503, every=4)) as engine:
        outputs = stage.deployed(engine, concurrency=[1], num_requests=20, warmup=0)
    assert outputs.metrics["gguf.errors"] == 5
    assert outputs.report["levels"][0]["errors"] == {"http_503": 5}


def test_a_release_that_answers_nothing_fails_the_stage(stage: Stage) -> None:
    with serving(refusing(500)) as engine, pytest.raises(EngineError, match=r"gguf, . streams: .*http_500"):
        stage.deployed(engine)


def test_a_release_that_answers_nothing_fails_the_stage_although_another_server_does(stage: Stage) -> None:
    with serving(refusing(500)) as engine, serving(answer("a")) as other, pytest.raises(EngineError, match="of gguf"):
        stage.deployed(engine, servers=[{"name": "other", "url": other.url}], num_requests=4)


def test_another_server_that_fails_is_a_row(stage: Stage) -> None:
    with serving(answer("a")) as engine:
        servers = [{"name": "gone", "url": "http://127.0.0.1:9/v1"}]
        outputs = stage.deployed(engine, servers=servers, concurrency=[1], num_requests=4)
    assert outputs.metrics["gone.failed_cells"] == 1
    assert "gguf.ttft_p95" in outputs.metrics
    assert "gone.ttft_p95" not in outputs.metrics
    assert "127.0.0.1:9" in outputs.report["failed"][0]
    assert any(kind == "log" and "gone" in data["message"] for kind, data in stage.events)


def test_servers_alone_are_measured_with_their_keys_and_prices(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_KEY", "s3cret")
    with serving(answer("a")) as one, serving(answer("a")) as two:
        servers = [
            {"name": "one", "url": one.url, "api_key": "${SERVER_KEY}", "usd_per_hour": "$3"},
            {"name": "two", "url": two.url, "model": "fake"},
        ]
        outputs = stage.run({}, servers=servers, concurrency=[1], num_requests=4)
    assert outputs.metrics["one.usd_per_million_tokens"] > 0
    assert "two.usd_per_million_tokens" not in outputs.metrics, "an unknown price is not guessed"
    assert outputs.report["servers"] == ["one", "two"]
    everything = "".join(path.read_text(errors="replace") for path in stage.folder.rglob("*") if path.is_file())
    assert "s3cret" not in everything
    assert benchmark.refresh(outputs, stage.folder) is None, "what servers do now is measured anew"
    assert benchmark.refresh(Outputs(report={"servers": []}), stage.folder) is not None


def test_a_key_that_is_not_set_is_bad_input(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with serving(answer("a")) as engine, pytest.raises(InputError, match="NO_SUCH_KEY is not set"):
        stage.run({}, servers=[{"name": "one", "url": engine.url, "api_key": "${NO_SUCH_KEY}"}])


def test_own_prompts(stage: Stage) -> None:
    (stage.folder / "prompts.jsonl").write_text("nothing\n")
    with serving(answer("a")) as engine, pytest.raises(InputError, match=r"prompts\.jsonl:1"):
        stage.deployed(engine, workload={"dataset": "prompts.jsonl"})


def test_what_was_measured_before_a_restart_is_not_measured_again(stage: Stage) -> None:
    with serving(answer("a")) as engine:
        first = stage.deployed(engine, concurrency=[1, 2], num_requests=4)
        asked = len(engine.bodies)
        again = stage.deployed(engine, concurrency=[1, 2], num_requests=4)
        assert len(engine.bodies) == asked
    assert again == first


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"sweep": "maybe"}, "sweep"),
        ({"request_rate": [-1]}, "greater than 0"),
        ({"concurrency": [1, 1]}, "repeats one"),
        ({"concurrency": [0]}, "greater than or equal to 1"),
        ({"concurency": [1]}, "concurency"),
        ({"servers": [{"name": "a b", "url": "http://x"}]}, "name"),
        ({"servers": [{"name": "a", "url": "x:80"}]}, "begins with http"),
        ({"servers": [{"name": "a", "url": "http://x", "api_key": "sk-1"}]}, "named and never written"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(config: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        benchmark.Config.model_validate(config)


def test_the_stored_config_reads_back() -> None:
    config = benchmark.Config.model_validate(
        {"concurrency": [1, 8], "slo": {"ttft": "1s"}, "servers": [{"name": "a", "url": "http://x", "usd_per_hour": 2}]}
    )
    assert benchmark.Config.model_validate_json(config.model_dump_json()) == config


def test_an_engine_of_its_own_needs_the_accelerators() -> None:
    def wanted(**config: Any) -> float:
        return benchmark.estimate(benchmark.Config(num_gpus=2, **config)).num_gpus

    assert [wanted(targets=["a"], deployed="a"), wanted(targets=["a", "b"], deployed="a"), wanted()] == [0, 2, 0]


def a_cell(workload: str, load: int, ttft: float, **of_summary: Any) -> Cell:
    values = dict.fromkeys(("mean", "min", "max", "p50", "p90", "p95", "p99"), ttft)
    summary = Summary(
        **{
            "requests": 10, "succeeded": 10, "warmup_requests": 0, "duration_s": 1, "requests_per_s": 10.0 * load,
            "latencies": {"ttft": Spread(n=10, **values)}, "output_tokens_per_s": 100.0 * load,
            "input_tokens_per_s": 1.0, "prompt_tokens": 1, "completion_tokens": 1, "cached_tokens": None, "errors": {},
            **of_summary,
        }
    )  # fmt: skip
    return Cell(id=f"{workload}{load}", target="t", workload=workload, mode="closed", concurrency=load, summary=summary)


def a_result(*cells: Cell, **more: Any) -> Result:
    targets = [Target(name="t", url="http://x/v1", model="m")]
    return Result(id="b", name="n", created=0, orch_version="0", targets=targets, cells=list(cells), **more)


def test_over_several_workloads_a_load_stands_for_the_worst_and_each_has_its_own() -> None:
    cells = (a_cell("chat", 8, 0.1, goodput=1.0), a_cell("rag", 8, 0.4, goodput=0.5, errors={"timeout": 2}))
    found = metrics(a_result(*cells))
    assert (found["t.c8.ttft_p95"], found["t.chat.c8.ttft_p95"], found["t.rag.c8.ttft_p95"]) == (0.4, 0.1, 0.4)
    assert (found["t.c8.goodput"], found["t.c8.errors"], found["t.errors"]) == (0.5, 2, 2)


def test_a_failed_cell_shows_in_its_errors_and_not_in_the_latencies() -> None:
    failed = a_cell("chat", 64, 9.0, errors={"connect": 10}).model_copy(update={"state": "failed"})
    found = metrics(a_result(a_cell("chat", 8, 0.1), failed))
    assert (found["t.ttft_p95"], found["t.errors"], found["t.failed_cells"]) == (0.1, 10, 1)
    assert "t.c64.ttft_p95" not in found


def test_a_rate_that_was_looked_for_and_not_found_is_zero() -> None:
    search = Search(target="t", workload="chat", knee=24, max_rate=None, trials=9)
    found = metrics(a_result(a_cell("chat", 8, 0.1), searches=[search], slo=Slo(ttft=0.01)))
    assert (found["t.knee"], found["t.max_rate"]) == (24, 0)
    assert "t.max_rate" not in metrics(a_result(a_cell("chat", 8, 0.1), searches=[search])), "none was looked for"


def test_every_metric_can_be_the_subject_of_a_gate() -> None:
    from fnmatch import fnmatchcase

    search = Search(target="t", workload="chat", knee=24, max_rate=3.5, trials=9)
    cell = a_cell("chat", 8, 0.1, goodput=1.0, goodput_per_s=2.0, usd_per_million_tokens=0.5)
    for name in metrics(a_result(cell, searches=[search], slo=Slo(ttft=1))):
        assert any(fnmatchcase(name, pattern) for pattern in benchmark.METRICS), name


@pytest.mark.slow
def test_exports_are_started_on_their_engines_one_after_another(bench: Any, exported: Outputs, stage: Stage) -> None:
    (stage.folder / "rows.jsonl").write_text(Path(bench.inputs["data"].artifacts["test_rows"]).read_text())
    data = Outputs(artifacts={"test_rows": str(stage.folder / "rows.jsonl")})
    outputs = stage.run(
        {"export": exported, "data": data},
        targets=["exact", "small"],
        engine_args={"small": {"n_ctx": 1024, "parallel": 2}},
        concurrency=[1, 2],
        num_requests=6,
        max_tokens=8,
    )
    assert outputs.metrics["exact.errors"] == outputs.metrics["small.errors"] == 0
    (kept,) = Store(stage.folder).benchmarks(1)
    result = Result.model_validate(kept)
    assert [target.engine for target in result.targets] == ["llama_cpp", "llama_cpp"]
    assert [target.quantization for target in result.targets] == ["F32", "Q8_0"]
    assert result.target("small").engine_args["n_ctx"] == 1024
    assert result.prompt_parity is not None
    assert result.prompt_parity["identical"]
    for cell in result.cells:
        assert cell.summary is not None
        assert cell.summary.engine, "its metrics were scraped"
        generated = [sample.generated_tokens_total or 0 for sample in cell.summary.engine]
        assert generated[-1] - generated[0] >= cell.summary.completion_tokens
