"""How well plans held: predicted beside measured, only for what a run has carried out itself."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.clusters.cluster import Cluster
from orchestrator.controller import runs
from orchestrator.controller.accuracy import Held, accuracy
from orchestrator.planner.estimate import Estimate, Term, Unknown
from orchestrator.planner.forecast import Forecast, LoadForecast, Price, StageForecast, TargetForecast
from orchestrator.planner.plan import Plan, PlannedStage, Resources
from orchestrator.store.store import Store

STAGES = ("data", "train", "benchmark")
UNKNOWN = Unknown(reason="unknown: nobody said")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _estimate(unit: str, value: float, *terms: Term) -> Estimate:
    return Estimate(unit=unit, value=value, low=0.5 * value, high=1.5 * value, terms=list(terms))


def _forecast() -> Forecast:
    context = Term(name="context", amount=1e9, because="x")
    memory = _estimate("bytes", 10e9, Term(name="weights", amount=9e9, because="x"), context)
    train = StageForecast(stage="train", memory=memory, time=_estimate("s", 100), cost=_estimate("USD", 0.1))
    load = LoadForecast(
        concurrency=8,
        input_tokens=1,
        output_tokens=1,
        ttft=_estimate("s", 0.1),
        tpot=_estimate("s", 0.01),
        throughput=_estimate("tokens/s", 500),
        usd_per_million=UNKNOWN,
    )
    target = TargetForecast(
        name="gguf", engine="llama_cpp", quantization="Q8_0", accelerator="H100:1", fit=UNKNOWN, loads=[load]
    )
    return Forecast(
        price=Price(usd_per_hour=3.6, low=1, high=9, term="on-demand", source="x"),
        stages=[
            StageForecast(stage="data", time=UNKNOWN, cost=UNKNOWN),
            train,
            StageForecast(stage="benchmark", time=_estimate("s", 10), cost=UNKNOWN),
        ],
        time=UNKNOWN,
        cost=UNKNOWN,
        targets=[target],
    )


def _plan(forecast: Forecast | None) -> Plan:
    stages = [PlannedStage(name=n, config={}, digest=f"{n}-digest", resources=Resources()) for n in STAGES]
    cluster = Cluster(name="x", address="127.0.0.1:1")
    return Plan(
        recipe="demo",
        path="demo.yaml",
        directory="/",
        cluster=cluster,
        accelerator=None,
        stages=stages,
        gates=[],
        service=None,
        obstacles=[],
        forecast=forecast,
    )


def _run(tmp_path: Path, forecast: Forecast | None, seconds: dict[str, float], peak: dict[str, int]) -> Store:
    clock = Clock()
    store = Store(tmp_path, clock=clock)
    run = runs.create(store, _plan(forecast))
    store.move_run(run, "running")
    for stage, lasts in seconds.items():
        report: dict[str, Any] = {"peak_memory": {"train": peak}} if stage == "train" else {}
        if stage == "benchmark":
            report = {"result": {"id": "b-1"}}
            summary = {"output_tokens_per_s": 400.0, "latencies": {"ttft": {"mean": 0.2}}}
            cell = {"target": "gguf", "state": "done", "concurrency": 8, "summary": summary}
            store.add_benchmark({"id": "b-1", "name": "demo", "created": 1.0, "run": run, "cells": [cell]})
        claim = store.claim_stage(run, stage)
        clock.now += lasts
        store.end_stage(claim, "succeeded", outputs={"artifacts": {}, "metrics": {}, "report": report})
    return store


def _of(found: list[Held], quantity: str, stage: str = "train") -> Held:
    return next(held for held in found if (held.quantity, held.stage) == (quantity, stage))


def test_time_and_cost_of_a_stage_are_judged_by_its_wall_time(tmp_path: Path) -> None:
    found = accuracy(_run(tmp_path, _forecast(), {"train": 80.0}, {"reserved": 8 * 10**9, "rss": 1}))
    time, cost = _of(found, "time"), _of(found, "cost")
    assert (time.predicted, time.measured, time.inside) == (100, 80, True)
    assert time.error == pytest.approx(0.25)
    assert cost.measured == pytest.approx(80 / 3600 * 3.6)


def test_memory_is_compared_with_what_torch_can_see(tmp_path: Path) -> None:
    held = _of(accuracy(_run(tmp_path, _forecast(), {"train": 80.0}, {"reserved": 9 * 10**9, "rss": 1})), "memory")
    assert (held.predicted, held.measured, held.error) == (9e9, 9e9, 0.0)
    assert "max_memory_reserved" in held.how


def test_a_cpu_s_memory_is_marked_and_never_compared(tmp_path: Path) -> None:
    held = _of(accuracy(_run(tmp_path, _forecast(), {"train": 80.0}, {"rss": 5 * 10**9})), "memory")
    assert (held.predicted, held.inside, held.measured) == (None, None, 5e9)
    assert "CPU" in held.how


def test_what_the_plan_did_not_know_is_said_and_not_counted(tmp_path: Path) -> None:
    held = _of(accuracy(_run(tmp_path, _forecast(), {"data": 3.0}, {})), "time", "data")
    assert (held.predicted, held.why_unknown, held.inside) == (None, "unknown: nobody said", None)


def test_loads_are_judged_by_the_benchmark(tmp_path: Path) -> None:
    found = accuracy(_run(tmp_path, _forecast(), {"benchmark": 10.0}, {}))
    rate, ttft = (_of(found, f"gguf, 8 at once: {name}", "benchmark") for name in ("throughput", "TTFT"))
    assert (rate.predicted, rate.measured, rate.inside) == (500, 400, True)
    assert (ttft.predicted, ttft.measured, ttft.inside) == (0.1, 0.2, False)


def test_reused_stages_and_second_attempts_do_not_count(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run = runs.create(store, _plan(_forecast()))
    store.move_run(run, "running")
    store.reuse_stage(run, "data", {"artifacts": {}, "metrics": {}, "report": {}})
    store.claim_stage(run, "train")
    store.reset_stage(run, "train", "interrupted")
    claim = store.claim_stage(run, "train")
    store.end_stage(claim, "succeeded", outputs={"artifacts": {}, "metrics": {}, "report": {}})
    assert accuracy(store) == []


def test_a_run_of_an_older_version_has_nothing_to_say(tmp_path: Path) -> None:
    store = _run(tmp_path, None, {"train": 80.0}, {"rss": 1})
    assert accuracy(store) == []
    assert accuracy(store, "another") == []
