"""Comparisons of two results: pairing, intervals, verdicts, and which changes count as regressions."""

from array import array
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from orchestrator.bench.compare import Comparison, compare, only, regressions
from orchestrator.bench.result import Cell, Result, Slo, Target
from orchestrator.bench.summary import summarize
from orchestrator.bench.verdict import METRICS, percent, sentence
from orchestrator.loadgen.load import Measurement
from tests.measurements import at, failed, measurement, record

SLO = Slo(ttft=0.3)


def run(seed: int, *, slow: float = 1.0, prompts: int = 200, streams: int = 8, **changes: Any) -> Measurement:
    """A closed loop over prompts that are the same for every seed, short and long; the server's noise is not."""
    draw, lengths = np.random.default_rng(seed), np.random.default_rng(1).integers(10, 40, prompts)
    free, records = [0.0] * streams, []
    for index, tokens in enumerate(lengths):
        stream = free.index(min(free))
        sent = free[stream]
        first = sent + slow * 0.05 * draw.lognormal(0, 0.4) * (1 + tokens / 25)
        gaps = slow * 0.01 * draw.lognormal(0, 0.3, tokens - 1) * draw.lognormal(0, 0.1)
        times = [first, *(first + np.cumsum(gaps))]
        records.append(record(sent, times, index=index, prompt=index, **changes))
        free[stream] = times[-1]
    return measurement(records, 0, (max(one.sent for one in records) - at(0)) / 1e9)


def cell(id: str, found: Measurement | None, *, target: str = "vllm", streams: int = 8, **changes: Any) -> Cell:
    summary = summarize(found, slo=SLO, usd_per_hour=2.0) if found else None
    fields: dict[str, Any] = {"workload": "chat", "mode": "closed", "concurrency": streams, "summary": summary}
    return Cell(id=id, target=target, **fields | changes)


def result(id: str, *cells: Cell, **changes: Any) -> Result:
    names = dict.fromkeys(one.target for one in cells)
    fields: dict[str, Any] = {
        "name": id,
        "created": 0,
        "orch_version": "0",
        "slo": SLO,
        "targets": [Target(name=name, url="http://127.0.0.1:8000/v1", model="m") for name in names],
    }
    return Result(id=id, cells=list(cells), **fields | changes)


def loader(**found: Measurement) -> Callable[[Result, Cell], Measurement | None]:
    """The records by the cells' ids."""
    return lambda _, cell: found.get(cell.id)


def compared(a: Measurement, b: Measurement, **changes: Any) -> Comparison:
    return compare(result("A", cell("a", a)), result("B", cell("b", b), **changes), loader(a=a, b=b))


def test_a_measurement_does_not_differ_from_itself() -> None:
    load = run(1)
    comparison = compared(load, load)
    assert all(change.change == 0 for change in comparison.cells[0].changes)
    assert all("no difference" in change.verdict for change in comparison.cells[0].changes if change.interval)
    assert regressions(comparison, 0.0) == []


def test_a_server_that_is_12_percent_slower_is_found_in_every_kind_of_metric() -> None:
    comparison = compared(run(3, prompts=500), run(4, prompts=500, slow=1.12))
    found = {regression.metric for regression in regressions(comparison, 0.05)}
    assert {"itl_p50", "tpot_p50", "e2e_p50", "output_tokens_per_s", "usd_per_million_tokens"} <= found
    assert {change.metric for change in comparison.cells[0].changes} <= set(METRICS)
    for change in comparison.cells[0].changes:
        assert change.interval is None or change.interval[0] < change.change < change.interval[1]
    itl = next(change for change in comparison.cells[0].changes if change.metric == "itl_p50")
    assert itl.change == pytest.approx(0.12, abs=0.03)
    assert "slower in ITL p50" in itl.verdict


def test_only_the_metrics_that_have_a_limit_are_judged() -> None:
    comparison = compared(run(3, prompts=500), run(4, prompts=500, slow=1.12))
    found = regressions(comparison, {"itl_p50": 0.05, "e2e_p50": 0.5})
    assert [regression.metric for regression in found] == ["itl_p50"]


def test_an_improvement_is_no_regression() -> None:
    comparison = compared(run(1), run(2, slow=0.85))
    assert regressions(comparison, 0.05) == []
    assert any("faster in TPOT p50" in text for text in comparison.sentences)
    assert any("higher in output tokens/s" in text for text in comparison.sentences)
    assert any("lower in cost per million tokens" in text for text in comparison.sentences)


@pytest.mark.slow
def test_comparisons_of_a_thing_with_itself_raise_no_false_alarm() -> None:
    alarms = [bool(regressions(compared(run(seed), run(seed + 1000)), 0.05)) for seed in range(40)]
    assert sum(alarms) <= 2


@pytest.mark.slow
def test_true_changes_are_found() -> None:
    twelve = [bool(regressions(compared(run(seed), run(seed + 1000, slow=1.12)), 0.05)) for seed in range(10)]
    assert sum(twelve) == 10
    five = [
        bool(regressions(compared(run(seed, prompts=800), run(seed + 1000, prompts=800, slow=1.05)), 0.05))
        for seed in range(10)
    ]
    assert sum(five) >= 9


@pytest.mark.slow
def test_intervals_of_changes_hold_the_truth() -> None:
    inside = {"itl_p50": 0, "output_tokens_per_s": 0, "ttft_p50": 0}
    for seed in range(40):
        found = {one.metric: one for one in compared(run(seed), run(seed + 500, slow=1.2)).cells[0].changes}
        for name in inside:
            truth = 1 / 1.2 - 1 if name == "output_tokens_per_s" else 0.2
            low, high = found[name].interval or (1.0, 0.0)
            inside[name] += low <= truth <= high
    assert all(count >= 34 for count in inside.values()), inside


def test_pairing_by_prompt_takes_the_prompts_own_lengths_out() -> None:
    a, b = run(1), run(2, slow=1.1)
    paired = compared(a, b)
    other = replace(b, records=[replace_prompt(one, 10_000 + one.prompt) for one in b.records])
    unpaired = compared(a, other)
    assert paired.cells[0].paired
    assert not unpaired.cells[0].paired
    assert "unpaired" in unpaired.cells[0].note
    assert width(paired, "e2e_p50") < 0.9 * width(unpaired, "e2e_p50")


def replace_prompt(one: Any, prompt: int) -> Any:
    return replace(one, prompt=prompt, content=array("q", one.content))


def width(comparison: Comparison, metric: str) -> float:
    interval = next(change.interval for change in comparison.cells[0].changes if change.metric == metric)
    assert interval is not None
    return interval[1] - interval[0]


def test_a_few_prompts_sent_many_times_are_paired_by_their_sendings() -> None:
    a, b = (
        replace(load, records=[replace_prompt(one, one.index % 5) for one in load.records]) for load in (run(1), run(2))
    )
    comparison = compared(a, b)
    assert comparison.cells[0].paired
    assert any(change.interval for change in comparison.cells[0].changes)


def test_other_seeds_mean_other_prompts() -> None:
    a, b = run(1), run(2)
    workloads = [{"chat": {"kind": "synthetic", "file": None, "seed": seed}} for seed in (17, 18)]
    comparison = compare(
        result("A", cell("a", a), workloads=workloads[0]),
        result("B", cell("b", b), workloads=workloads[1]),
        loader(a=a, b=b),
    )
    assert "different prompts" in comparison.cells[0].note
    assert "workload chat: seed is 17 in A, 18 in B" in comparison.warnings


def test_a_handful_of_requests_says_nothing_about_chance() -> None:
    comparison = compared(run(1, prompts=12), run(2, prompts=12, slow=2))
    assert all(change.interval is None for change in comparison.cells[0].changes)
    assert any("too few requests" in change.verdict for change in comparison.cells[0].changes)
    assert regressions(comparison, 0.05) == []


def test_a_stall_that_many_requests_share_is_not_taken_for_a_difference_of_all_of_them() -> None:
    load = run(1)
    stalled = [replace_late(one, 0.2) if 90 <= one.index < 100 else one for one in load.records]
    comparison = compared(load, replace(load, records=stalled))
    ttft = next(change for change in comparison.cells[0].changes if change.metric == "ttft_p95")
    assert ttft.change > 0.05
    assert "ttft_p95" not in {regression.metric for regression in regressions(comparison, 0.05)}


def replace_late(one: Any, seconds: float) -> Any:
    content = array("q", (time + round(seconds * 1e9) for time in one.content))
    return replace(one, content=content, ended=one.ended + round(seconds * 1e9))


def test_more_errors_are_a_regression_and_a_single_one_is_not() -> None:
    load = run(1)
    broken = [failed(0.1 * i, "http_503", 0.1 * i + 0.01, index=1000 + i, prompt=i) for i in range(20)]
    worse = compared(load, replace(load, records=[*load.records, *broken]))
    assert [one.metric for one in regressions(worse, 10.0)] == ["errors"]
    assert "0.0 % of the requests failed in A, 9.1 % in B" in regressions(worse, 10.0)[0].verdict
    assert regressions(compared(load, replace(load, records=[*load.records, broken[0]])), 10.0) == []


def test_a_cell_that_fails_in_b_alone_is_a_regression() -> None:
    load = run(1)
    dead = cell("b", None, state="failed", cause="the engine died with code 139")
    comparison = compare(result("A", cell("a", load)), result("B", dead), loader(a=load))
    assert [one.verdict for one in regressions(comparison, 0.05)] == [
        "failed in B alone: the engine died with code 139"
    ]
    back = compare(result("B", dead), result("A", cell("a", load)), loader(a=load))
    assert regressions(back, 0.05) == []


def test_cells_find_their_partner_by_target_workload_and_load() -> None:
    load = run(1, prompts=40)
    a = result("A", cell("1", load, streams=1), cell("2", load), cell("3", load, target="llama"))
    b = result("B", cell("4", load), cell("5", load, target="llama"), cell("6", load, target="sglang"))
    comparison = compare(a, b, loader())
    assert [(one.a, one.b) for one in comparison.cells] == [("2", "4"), ("3", "5")]
    assert comparison.unmatched == ["vllm, chat, 1 streams: in A only", "sglang, chat, 8 streams: in B only"]
    assert comparison.pairing == "by target: vllm, llama"


def test_one_target_on_each_side_is_compared_whatever_its_name() -> None:
    load = run(1, prompts=40)
    both = result("A", cell("1", load), cell("2", load, target="llama"))
    comparison = compare(only(both, "vllm"), only(both, "llama"), loader())
    assert [one.name for one in comparison.cells] == ["vllm, chat, 8 streams -> llama, chat, 8 streams"]
    assert comparison.pairing == "A is vllm, B is llama"


def test_without_records_changes_are_shown_but_fail_nothing() -> None:
    a, b = run(1), run(2, slow=2)
    comparison = compare(result("A", cell("a", a)), result("B", cell("b", b)), loader())
    assert "no records" in comparison.cells[0].note
    assert next(one.change for one in comparison.cells[0].changes if one.metric == "itl_p50") > 0.8
    assert regressions(comparison, 0.05) == []


def test_warnings_name_what_else_differs() -> None:
    load = run(1, prompts=40)
    machines = [{"cpu": "x", "cores": 8, "gpus": [{"name": "H100", "driver": driver}]} for driver in ("550", "570")]
    targets = [[Target(name="vllm", url="u", model="m", hardware=machine)] for machine in machines]
    a = result("A", cell("a", load), targets=targets[0], settings={"seed": 1, "temperature": 0.0})
    b = result("B", cell("b", load), targets=targets[1], settings={"seed": 2, "temperature": 0.0}, slo=Slo(ttft=9))
    assert compare(a, b, loader(a=load, b=load)).warnings == [
        "hardware of vllm: driver is 550 in A, 570 in B",
        "the SLOs differ, so goodput is not compared",
        "settings: seed is 1 in A, 2 in B",
    ]


def test_another_chat_template_and_longer_answers_are_said() -> None:
    a, b = run(1), run(2, prompt_tokens=22)
    longer = [replace(one, completion_tokens=2 * (one.completion_tokens or 0)) for one in b.records]
    warnings = compared(a, replace(b, records=longer)).cells[0].warnings
    assert any("+12.0 tokens in B" in text for text in warnings)
    assert any("answers are" in text for text in warnings)


def test_a_comparison_is_plain_data_with_its_sentences() -> None:
    data = compared(run(1, prompts=60), run(2, prompts=60)).model_dump(mode="json")
    assert data["title"] == "A (A)"
    assert data["sentences"]
    assert data["cells"][0]["changes"][0]["metric"] == "ttft_p50"


@pytest.mark.parametrize(
    ("metric", "change", "interval", "text"),
    [
        ("ttft_p95", 0.12, (0.09, 0.15), "B is 12 % [9, 15] slower in TTFT p95"),
        ("ttft_p95", -0.12, (-0.15, -0.09), "B is 12 % [9, 15] faster in TTFT p95"),
        ("e2e_p50", -0.01, (-0.04, 0.02), "end-to-end latency p50: no difference shown, -1 % [-4, 2]"),
        ("output_tokens_per_s", -0.05, (-0.055, -0.045), "B is 5.0 % [4.5, 5.5] lower in output tokens/s"),
        ("usd_per_million_tokens", 0.5, (0.4, 0.6), "B is 50 % [40, 60] higher in cost per million tokens"),
    ],
)
def test_verdicts_read_like_sentences(metric: str, change: float, interval: tuple[float, float], text: str) -> None:
    assert sentence(metric, change, interval) == text


def test_no_negative_zero() -> None:
    assert percent(-0.0001, (-0.02, 0.02)) == "0 % [-2, 2]"


def test_a_goodput_that_fell_to_nothing_is_a_regression() -> None:
    comparison = compared(run(1), run(2, slow=20.0))
    [change] = [change for change in comparison.cells[0].changes if change.metric == "goodput"]
    assert (change.b, change.change) == (0.0, -1.0)
    assert change.verdict.startswith("B is 100.0 % [98.")
    assert change.verdict.endswith("lower in goodput")
    assert "goodput" in {regression.metric for regression in regressions(comparison, 0.05)}
