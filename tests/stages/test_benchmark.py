"""The benchmark stage against a real server."""

import json

import pytest
from pydantic import ValidationError

from orchestrator.errors import EngineError, InputError
from orchestrator.stages import benchmark
from orchestrator.stages.base import Context, Outputs
from orchestrator.testing import Status, answer, serving


def run(tmp_path, script, **config):
    """The outputs and the events of the stage."""
    rows = tmp_path / "rows.jsonl"
    row = {"messages": [{"role": "user", "content": "Which licence?"}, {"role": "assistant", "content": "MIT"}]}
    rows.write_text(json.dumps(row) + "\n")
    events = []
    with serving(script) as engine:
        report = {"engine_url": engine.url, "model": "legal", "target": "gguf", "release": "legal@2"}
        inputs = {
            "data": Outputs(artifacts={"test_rows": str(rows)}),
            "deploy": Outputs(report={**report, "engine": "llama_cpp", "engine_version": "b1"}),
        }

        def emit(kind, /, **data):
            events.append((kind, data))

        context = Context(
            home=tmp_path, run="r1", digest="d1", cwd=tmp_path, directory=tmp_path, inputs=inputs, emit=emit,
            worker=lambda name, request: {},
        )  # fmt: skip
        outputs = benchmark.run(benchmark.Config.model_validate(config), context)
    return outputs, events


def test_measures_every_concurrency(tmp_path):
    outputs, events = run(tmp_path, answer("a", "b", "c"), concurrency=[1, 4], num_requests=20)
    metrics, levels = outputs.metrics, outputs.report["levels"]
    for name in ("ttft", "itl", "tpot", "e2e"):
        for share in ("p50", "p95", "p99"):
            key = f"{name}_{share}"
            assert metrics[f"gguf.{key}"] == max(metrics[f"gguf.c1.{key}"], metrics[f"gguf.c4.{key}"])
    assert metrics["gguf.tokens_per_s"] == max(level["tokens_per_s"] for level in levels)
    assert metrics["gguf.errors"] == 0
    assert [level["completion_tokens"] for level in levels] == [60, 60]
    assert outputs.report["hardware"]["cores"] >= 1
    assert outputs.report["engine_version"] == "b1"
    assert [data["concurrency"] for kind, data in events if kind == "level"] == [1, 4]
    assert [data for kind, data in events if kind == "progress"][-1] == {"step": 40, "steps": 40, "concurrency": 4}
    assert Outputs.model_validate_json(outputs.model_dump_json()) == outputs


def test_failures_are_counted_by_kind(tmp_path):
    asked = 0
    good = answer("a")

    async def script(body):
        nonlocal asked
        asked += 1
        if asked % 4 == 0:
            raise Status(503, {"error": {"message": "busy"}})
        async for piece in good(body):
            yield piece

    outputs, _ = run(tmp_path, script, concurrency=[1], num_requests=20, warmup=0)
    assert outputs.metrics["gguf.errors"] == 5
    assert outputs.report["levels"][0]["errors"] == {"http_503": 5}


def test_an_engine_that_answers_nothing_fails_the_stage(tmp_path):
    async def script(body):
        raise Status(500, {"error": {"message": "context too long"}})
        yield b""

    with pytest.raises(EngineError, match=r"all 32 requests to legal@2 .* failed \(32 http_500\).*context"):
        run(tmp_path, script)


def test_own_prompts(tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("nothing\n")
    with pytest.raises(InputError, match=r"prompts\.jsonl:1"):
        run(tmp_path, answer("a"), workload={"dataset": "prompts.jsonl"})


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"sweep": "auto"}, "sweep\n.*not available yet"),
        ({"request_rate": [1]}, "request_rate\n.*not available yet"),
        ({"workload": {"synthetic": {"input_tokens": 8}}}, r"workload\.synthetic\n.*not available yet"),
        ({"workload": {"trace": "a.csv"}}, r"workload\.trace\n.*not available yet"),
        ({"targets": ["a", "b"]}, "targets\n.*several targets is not available yet"),
        ({"concurrency": [1, 1]}, "repeats one"),
        ({"concurrency": []}, "at least 1 item"),
        ({"concurrency": [0]}, "greater than or equal to 1"),
        ({"concurency": [1]}, "concurency"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(config, text):
    with pytest.raises(ValidationError, match=text):
        benchmark.Config.model_validate(config)


def test_the_stored_config_reads_back():
    config = benchmark.Config(concurrency=[1, 8, 64])
    assert benchmark.Config.model_validate_json(config.model_dump_json()) == config
    assert [config.requests(level) for level in config.concurrency] == [32, 32, 256]
