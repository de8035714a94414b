"""The numbers of parity from answers that a test makes up: each metric, its buckets, and what was not measured."""

from typing import Any

import pytest

from orchestrator.stages import _compared as compared
from orchestrator.stages._compared import Compared, Prompt

TEXT, ENDS_AT = "Licence: MIT", [8, 9, 12, 12]


def prompt(**changes: Any) -> Prompt:
    values = {"row": 0, "bucket": "medium", "messages": [{"role": "user", "content": "Name it"}], "own": "Licence: MIT"}
    values |= {"source": "a MIT licence", "prompt_ids": [1, 2, 3], "answer_ids": [7, 8, 9, 5], "ends_at": ENDS_AT}
    return Prompt.model_validate({**values, "text": TEXT, "ended": True, "top": [], **changes})


def answer(**changes: Any) -> Compared:
    found = {"kl": [0.0, 0.2], "logprob_diff": [0.1, 0.3], "told": 100, "answer": TEXT, "ended": True}
    return Compared.model_validate({**found, "same_tokens": True, **changes})


REFUSED = Compared(refused="the prompt has 900 tokens, the context 512")


def test_divergence_is_over_the_positions_of_all_prompts_and_of_each_bucket():
    pairs = [(prompt(bucket="short"), answer()), (prompt(), answer(kl=[0.4, 1.0]))]
    found = compared.of_model("gguf", pairs, "exact_match")
    assert found["gguf.kl_mean"] == pytest.approx(0.4)
    assert found["gguf.short.kl_mean"] == pytest.approx(0.1)
    assert found["gguf.medium.kl_p99"] == pytest.approx(0.994)
    assert found["gguf.logprob_diff"] == pytest.approx(0.2)
    assert "gguf.near_limit.kl_mean" not in found


def test_an_answer_is_the_same_when_text_and_end_are():
    assert compared.is_exact(prompt(), answer(answer=f" {TEXT}\n"))
    assert not compared.is_exact(prompt(), answer(ended=False))
    assert not compared.is_exact(prompt(), answer(answer="Licence: BSD"))
    assert not compared.is_exact(prompt(text=""), REFUSED)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({}, None),
        ({"answer": "Licence: BSD"}, 2),
        ({"answer": "Licence: MI"}, 2),
        ({"answer": "licence"}, 0),
        ({"answer": f"{TEXT} or BSD"}, 4),
        ({"ended": False}, 3),
    ],
)
def test_the_first_difference_is_the_first_token_that_was_not_written_as_well(changes, place):
    assert compared.first_difference(prompt(), answer(**changes)) == place


def test_a_score_is_compared_on_the_same_prompts_with_an_interval():
    good, bad = (prompt(), answer()), (prompt(), answer(answer="Licence: BSD"))
    found = compared.of_model("gguf", [good] * 6 + [bad] * 2, "exact_match")
    assert found["gguf.score_diff"] == -0.25
    assert found["gguf.score_diff_low"] < -0.25 < found["gguf.score_diff_high"] <= 0
    better = (prompt(text="Licence: BSD"), answer())
    assert compared.of_model("gguf", [better], "exact_match")["gguf.score_diff"] == 1


def test_answers_can_be_scored_by_their_groundedness():
    invented = (prompt(), answer(answer="Licence: GPL"))
    assert compared.of_model("gguf", [invented], "groundedness")["gguf.score_diff"] == -1
    assert compared.of_reference([prompt()], "groundedness")["reference.score"] == 1


def test_what_is_broken_about_the_trained_models_answer_too_is_not_held_against_an_export():
    loop = "no no no " * 9
    assert compared.broken(prompt(), answer(answer=loop)) == ["repetition"]
    assert compared.broken(prompt(text=loop.strip()), answer(answer=loop)) == []
    assert compared.broken(prompt(ended=False), answer(ended=False)) == []
    assert compared.broken(prompt(), answer(ended=False)) == ["never_ending"]
    assert compared.of_reference([prompt(text=loop)], "exact_match")["reference.degenerate"] == 1


def test_a_refused_prompt_counts_as_another_answer_and_has_no_divergence():
    pairs = [(prompt(), answer()), (prompt(bucket="near_limit"), REFUSED)]
    found = compared.of_model("gguf", pairs, "exact_match") | compared.of_engine("gguf", pairs, True)
    assert found["gguf.exact_match"] == 0.5
    assert found["gguf.near_limit.exact_match"] == 0
    assert "gguf.near_limit.kl_mean" not in found
    assert found["gguf.kl_mean"] == pytest.approx(0.1)
    assert found["gguf.refused"] == 1
    assert found["gguf.prompt_tokens_identical"] == 1
    assert compared.worst(pairs)[0]["refused"] == REFUSED.refused


def test_only_held_out_rows_must_end_by_themselves():
    pairs = [(prompt(), answer()), (prompt(bucket="near_limit", ended=False), answer(ended=False))]
    assert compared.of_model("gguf", pairs, "exact_match")["gguf.stops"] == 1
    assert compared.of_reference([one for one, _ in pairs], "exact_match")["reference.stops"] == 1
    assert compared.of_reference([prompt(ended=False)], "exact_match")["reference.stops"] == 0


def test_what_an_engine_does_not_tell_is_no_metric():
    silent = answer(kl=[], logprob_diff=[], told=0)
    found = compared.of_model("trt", [(prompt(), silent)], "exact_match")
    found |= compared.of_engine("trt", [(prompt(), silent)], None)
    assert not [name for name in found if "kl" in name or "logprob" in name or "template" in name]
    assert found["trt.exact_match"] == 1


def test_every_metric_has_a_name_that_the_plan_knows():
    pairs = [(prompt(bucket=bucket), answer()) for bucket in compared.BUCKETS]
    found = compared.of_model("gguf", pairs, "exact_match") | compared.of_engine("gguf", pairs, True)
    found |= compared.of_model("merged", pairs, "exact_match")
    found |= compared.of_reference([one for one, _ in pairs], "exact_match")
    assert sorted(found) == sorted(compared.names(["gguf"]))


def test_the_worst_prompts_come_first_and_show_both_answers():
    pairs = [(prompt(row=row), answer(kl=[row / 10])) for row in range(8)]
    found = compared.worst(pairs)
    assert [entry["row"] for entry in found] == [7, 6, 5, 4, 3]
    assert (found[0]["reference"], found[0]["answer"]) == (TEXT, TEXT)
