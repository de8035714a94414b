"""Scores on plain rows, and the whole stage on a tiny model."""

import pytest
from pydantic import ValidationError

from orchestrator.errors import InputError
from orchestrator.stages import evaluate
from orchestrator.stages.base import Outputs

ROWS = [
    {"messages": [{"role": "user", "content": "free of charge"}, {"role": "assistant", "content": "MIT"}]},
    {"messages": [{"role": "user", "content": "no liability"}, {"role": "assistant", "content": "MIT"}]},
    {"messages": [{"role": "user", "content": "patent grant"}, {"role": "assistant", "content": "Apache-2.0"}]},
    {"messages": [{"role": "user", "content": "endorse"}, {"role": "assistant", "content": "BSD"}], "source": "BSD"},
]


def entries(base: list[str], tuned: list[str]) -> list[dict[str, object]]:
    return [{"row": n, "base": b, "tuned": t} for n, (b, t) in enumerate(zip(base, tuned, strict=True))]


def test_exact_match_ignores_case_and_white_space_and_nothing_else():
    metrics, report = evaluate.score_exact_match(
        ROWS, entries(["MIT", "x", "x", "x"], [" mit\n", "MIT", "Apache", "BSD"])
    )
    assert metrics == {
        "exact_match": 0.75,
        "exact_match.base": 0.25,
        "exact_match.gain": 0.5,
        "exact_match.majority": 0.5,
    }
    low, high = report["intervals"]["exact_match"]
    assert low < 0.75 < high
    assert report["majority_answer"] == "mit"


def test_groundedness_counts_answers_with_a_word_that_the_source_lacks():
    tuned = ["It is free", "no warranty", "The patent grant; no more", "BSD"]
    metrics, report = evaluate.score_groundedness(ROWS, entries(["charge"] * 4, tuned))
    assert metrics["groundedness.per_1000"] == 500
    assert metrics["groundedness.base.per_1000"] == 750
    assert metrics["groundedness.per_1000.low"] <= 500 <= metrics["groundedness.per_1000.high"]
    assert report["ungrounded"] == [{"row": 1, "claims": ["no warranty"]}, {"row": 2, "claims": ["no more"]}]


def test_tasks_that_ask_for_the_same_answers_share_them():
    tasks = [{"task": "exact_match"}, {"task": "groundedness"}, {"task": "perplexity"}]
    assert len(evaluate._generations(evaluate.Config(tasks=tasks))) == 1
    assert len(evaluate._generations(evaluate.Config(tasks=[*tasks[:1], {"task": "groundedness", "limit": 3}]))) == 2


def test_a_harness_that_is_not_there_yet_is_refused_by_name():
    with pytest.raises(ValidationError, match="lm_eval is not available yet"):
        evaluate.Task.model_validate({"task": "lm_eval"})


def test_without_held_out_rows_there_is_nothing_to_evaluate_on(tmp_path):
    from orchestrator.environments.site import Site
    from orchestrator.stages.base import Context

    inputs = {"data": Outputs(), "train": Outputs(artifacts={"adapter": "x"})}
    context = Context(
        home=tmp_path,
        run="r",
        digest="d",
        cwd=tmp_path,
        directory=tmp_path,
        inputs=inputs,
        emit=lambda *a, **k: None,
        worker=lambda *a: {},
        site=Site(tmp_path),
    )
    with pytest.raises(InputError, match="no held-out rows"):
        evaluate.run(evaluate.Config(tasks=[{"task": "exact_match"}]), context)


@pytest.mark.slow
def test_a_tuned_model_is_measured_against_its_base(bench):
    tasks = [
        {"task": kind, "max_new_tokens": 24, "batch_size": 4} for kind in ("exact_match", "groundedness", "perplexity")
    ]
    outputs = evaluate.run(evaluate.Config(tasks=tasks), bench.context("evaluate"))
    metrics = outputs.metrics
    assert metrics["exact_match"] == 1, "the adapter was fitted to these rows"
    assert metrics["exact_match.base"] == 0
    assert metrics["exact_match.majority"] == pytest.approx(1 / 3)
    assert metrics["groundedness.per_1000"] == 0
    assert metrics["groundedness.base.per_1000"] > 0
    assert 1 <= metrics["perplexity"] < 1.5 < metrics["perplexity.base"]
    assert outputs.report["answers_ended"]["tuned"] == 1
    sample = outputs.report["samples"][0]
    assert sample["tuned"] == sample["reference"] == "Licence: MIT"
    steps = [data for kind, data in bench.events if kind == "progress"]
    assert steps[-1]["step"] == steps[-1]["steps"] == 24


@pytest.mark.slow
def test_a_full_model_is_measured_against_the_base_it_came_from(bench, tmp_path):
    from tests import tiny_model

    full = tiny_model.build_full(bench.folder / "base", tmp_path / "full")
    context = bench.context("evaluate-full", train=Outputs(artifacts={"model": str(full)}))
    tasks = [{"task": "exact_match", "limit": 3, "max_new_tokens": 24}, {"task": "perplexity", "limit": 3}]
    metrics = evaluate.run(evaluate.Config(tasks=tasks), context).metrics
    assert metrics["exact_match.gain"] > 0
    assert metrics["perplexity"] < metrics["perplexity.base"]
