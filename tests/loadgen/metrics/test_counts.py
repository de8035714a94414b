"""Errors, cached tokens, prompt parity and cost."""

import pytest

from orchestrator.loadgen.metrics import cached_tokens, cost, errors, prompt_parity
from tests.measurements import failed, record


def test_errors_are_counted_by_kind_the_most_frequent_first() -> None:
    records = [record(0, [1]), failed(0, "stall"), failed(0, "http_503"), failed(0, "http_503")]
    assert list(errors.by_kind(records).items()) == [("http_503", 2), ("stall", 1)]
    assert errors.share(records) == pytest.approx(0.75)
    assert errors.share([]) == 0


def test_the_example_is_of_the_kind_that_is_met_most() -> None:
    records = [failed(0, "stall", detail="quiet"), failed(0, "http_503", detail="busy"), failed(0, "http_503")]
    records += [failed(0, "http_503", detail="very busy")]
    assert errors.example(records) == "busy"
    assert errors.example([failed(0, "stall"), record(0, [1], detail="not a failure")]) is None


def test_cached_tokens_that_no_one_reports_are_unknown_not_zero() -> None:
    silent = [record(0, [1]), record(0, [1])]
    assert cached_tokens.total(silent) is None
    assert cached_tokens.share(silent) is None


def test_cached_tokens_and_their_share_of_the_prompts_that_say_it() -> None:
    records = [record(0, [1], cached_tokens=8), record(0, [1], cached_tokens=0), record(0, [1])]
    assert cached_tokens.total(records) == 8
    assert cached_tokens.share(records) == pytest.approx(0.4)


def test_cost_of_a_million_tokens() -> None:
    assert cost.usd_per_million_tokens(3.6, 1000) == pytest.approx(1.0)
    assert cost.usd_per_million_tokens(None, 1000) is None
    assert cost.usd_per_million_tokens(3.6, 0) is None


def _prompts(counts: dict[int, list[int]]) -> list:
    return [record(0, [1], prompt=prompt, prompt_tokens=n) for prompt, found in counts.items() for n in found]


def test_one_token_more_for_every_prompt_is_seen() -> None:
    parity = prompt_parity.compare(_prompts({0: [10], 1: [20], 2: [30]}), _prompts({0: [11], 1: [21], 2: [31]}))
    assert parity == prompt_parity.Parity(3, exact_share=0, mean_difference=1, mean_tokens=20, largest_difference=1)


def test_a_nonce_that_costs_a_token_in_one_run_is_not_a_difference() -> None:
    parity = prompt_parity.compare(_prompts({0: [10, 10, 11], 1: [20]}), _prompts({0: [10, 10, 9], 1: [20]}))
    assert parity is not None
    assert (parity.exact_share, parity.mean_difference) == (1, 0)


def test_only_prompts_that_both_counted_are_compared() -> None:
    ours, theirs = _prompts({0: [10], 1: [20]}), _prompts({1: [18], 2: [99]})
    later_turn = [record(0, [1], prompt=0, prompt_tokens=500, turn=1)]
    parity = prompt_parity.compare(ours, theirs + later_turn)
    assert parity is not None
    assert (parity.prompts, parity.mean_difference, parity.largest_difference) == (1, -2, -2)
    assert prompt_parity.compare(ours, later_turn) is None
