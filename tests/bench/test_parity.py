"""Whether targets count as having read the same prompts."""

from orchestrator.bench.parity import verdict

ALIKE = {"targets": ["a", "b"], "prompts": 36, "exact_share": 1.0, "largest_difference": 0.0}


def test_a_nonce_that_costs_a_token_less_in_one_of_two_cells_is_no_difference():
    found = verdict([ALIKE, ALIKE | {"exact_share": 0.0, "largest_difference": -0.5}])
    assert (found["identical"], found["differ"], found["largest"]) == (True, 0, -0.5)


def test_a_token_more_in_every_cell_is_one():
    found = verdict([ALIKE, ALIKE | {"exact_share": 0.0, "largest_difference": 1.0}])
    assert (found["identical"], found["differ"], found["largest"]) == (False, 36, 1.0)
