"""What the page says about exports: the matrix, what failed, where it broke, and both answers of a prompt."""

import re

from orchestrator.report.parity import view
from orchestrator.report.render import render
from orchestrator.report.run import GateReport, RunReport, StageReport

METRICS = {
    "reference.stops": 1.0,
    "reference.score": 0.75,
    "merged.kl_mean": 0.0002,
    "merged.short.kl_mean": 0.0001,
    "merged.exact_match": 1.0,
    "q8.kl_mean": 0.2,
    "q8.kl_p99": 1.5,
    "q8.short.kl_mean": 0.001,
    "q8.short.exact_match": 1.0,
    "q8.near_limit.kl_mean": 1.1,
    "q8.near_limit.exact_match": 0.5,
    "q8.near_limit.degenerate": 0.25,
    "q8.score_diff": -0.125,
    "q8.score_diff_low": -0.25,
    "q8.score_diff_high": 0.0,
    "q8.prompt_tokens_identical": 1.0,
    "q8.stops": 1.0,
    "q8.refused": 1.0,
}
DIFFERING = [
    {"row": 9, "bucket": "near_limit", "first_difference": 0, "broken": [], "refused": "900 tokens <too> long"},
    {"row": 3, "bucket": "near_limit", "first_difference": 4, "broken": ["never_ending"], "refused": None},
]
WORST = {
    "row": 3,
    "bucket": "near_limit",
    "prompt": "Name it: <free of charge>",
    "turns_before": 12,
    "prompt_tokens": 1990,
    "kl_mean": 1.1,
    "exact": False,
    "first_difference": 4,
    "answer_tokens": 9,
    "reference": "Licence: MIT",
    "reference_ended": True,
    "answer": "Licence: <b>ISC",
    "shared": 9,
    "ended": False,
    "same_tokens": True,
    "broken": ["never_ending"],
    "refused": None,
}
REPORT = {
    "prompts": {"short": 8, "medium": 0, "near_limit": 4},
    "prompt_tokens": {"short": [26, 26], "near_limit": [1900, 1990]},
    "positions": 8,
    "task": "exact_match",
    "comparison": {"merged": "the full vocabulary", "q8": "the 20 likeliest tokens and one tail"},
    "notes": {"q8": "It is served on another base."},
    "differing": {"merged": [], "q8": DIFFERING},
    "worst": {"merged": [], "q8": [WORST, {**WORST, "row": 9, "refused": "900 tokens <too> long"}]},
}
GATE = GateReport(name="parity.q8.near_limit.kl_mean", value=1.1, limit="at most 0.05", verdict="failed")


def stage(**metrics: float) -> StageReport:
    return StageReport(name="parity", state="succeeded", metrics=METRICS | metrics, report=REPORT)


def page(*gates: GateReport, **metrics: float) -> str:
    run = RunReport(run="r-1", recipe="r", digest="d" * 16, state="failed", stages=[stage(**metrics)], gates=[*gates])
    return render(run).split('<section id="parity">')[1].split("</section>")[0]


def cells(shown: str, target: str) -> list[str]:
    row = shown.split(f'<th scope="row">{target}')[1].split("</tr>")[0]
    return [re.sub(r"<[^>]*>", " ", cell).strip() for cell in row.split("<td")[1:]]


def test_a_column_is_a_length_of_prompts_and_a_row_an_export():
    found = view(stage(), [])
    assert found["buckets"] == {
        "all": "12 prompts",
        "short": "8 of 26 tokens",
        "near_limit": "4 of 1,900 to 1,990 tokens",
    }
    shown = cells(page(), "q8")
    assert "0.2" in shown[0]
    assert "p99 1.5" in shown[0]
    assert "1.1" in shown[2]
    assert "50 % same answers" in shown[2]
    assert "25 % broken" in shown[2]
    assert "1 refused" in shown[2]


def test_what_a_failed_gate_is_on_is_marked_and_said_first():
    shown = page(GATE)
    assert [cell["failed"] for cell in view(stage(), [GATE])["matrix"]["q8"]] == [False, False, True]
    assert shown.count('class="n bad"') == 2, "that cell, and the refused prompt"
    assert "The gate on q8.near_limit.kl_mean failed: 1.1, at most 0.05." in shown


def test_where_it_broke_names_export_length_and_rows():
    assert view(stage(), [])["broke"] == [
        "q8, near limit: 2 of 4 answers differ (mean KL 1.1 nats): row 9 was refused; row 3 from token 5 on"
        " (never ending)."
    ]


def test_other_prompt_tokens_and_a_model_without_end_are_said_before_what_follows_from_them():
    broke = view(stage(**{"q8.prompt_tokens_identical": 0.0, "reference.stops": 0.0}), [])["broke"]
    assert broke[0].startswith("The trained model itself does not end")
    assert broke[1].startswith("q8 reads prompts as other tokens than training did")


def test_the_rows_that_are_listed_are_few():
    rows = [{**DIFFERING[1], "row": row} for row in range(9)]
    many = stage().model_copy(update={"report": {**REPORT, "differing": {"q8": rows}}})
    (sentence,) = view(many, [])["broke"]
    assert sentence.endswith("row 3 from token 5 on (never ending) and 5 more.")


def test_both_answers_stand_side_by_side_with_their_difference_marked():
    shown = page()
    assert "Licence: <mark>MIT</mark>" in shown
    assert "Licence: <mark>&lt;b&gt;ISC</mark>" in shown
    assert "differs from token 5 of 9 on" in shown
    assert "1,990 prompt tokens, 12 turns before this one" in shown
    assert "900 tokens &lt;too&gt; long" in shown


def test_the_score_has_its_interval_and_the_note_is_said():
    shown = page()
    assert "-12.5 points<small>-25.0 to +0.0</small>" in shown
    assert "It is served on another base." in shown
    assert "over the 20 likeliest tokens and one tail" in shown


def test_an_engine_that_tells_no_probabilities_has_a_dash():
    metrics = {name: value for name, value in METRICS.items() if not name.startswith("q8") or "kl" not in name}
    silent = stage().model_copy(update={"metrics": metrics})
    assert view(silent, [])["matrix"]["q8"][0]["kl_mean"] is None
    assert view(StageReport(name="parity", state="failed"), []) is None
    assert view(None, []) is None
