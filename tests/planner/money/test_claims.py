"""What is right in the published claims comes out again, and what is not is shown by the numbers."""

import pytest

from orchestrator.catalog.catalog import load
from orchestrator.catalog.claims import Claim
from orchestrator.catalog.claims import load as load_claims
from orchestrator.errors import InputError
from orchestrator.planner.money.claims import Checked, check

CATALOG = load()
FOUND = {claim.id: check(claim, CATALOG) for claim in load_claims().claims}


def _figure(claim: str, name: str) -> tuple[float, float]:
    found = [figure for figure in FOUND[claim].finding.figures if figure.name.startswith(name)]
    assert found, [figure.name for figure in FOUND[claim].finding.figures]
    return found[0].low, found[0].high


def test_the_verdicts():
    assert {name: checked.finding.verdict for name, checked in FOUND.items()} == {
        "A1": "wrong",
        "A2": "right",
        "A3": "in part",
        "A4": "wrong",
        "A5": "wrong",
        "A6": "in part",
        "A7": "in part",
        "A8a": "wrong",
        "A8b": "right",
        "A8c": "right",
        "A9": "wrong",
        "A10": "right",
        "A11": "in part",
        "A12": "in part",
        "A13": "wrong",
    }


@pytest.mark.parametrize(
    ("claim", "figure", "low", "high"),
    [
        ("A1", "implied by the claim", 12.5, 12.5),
        ("A1", "the API's rates", 2.5, 10),
        ("A1", "all input", 3750, 3750),
        ("A1", "3:1", 6562.5, 6562.5),
        ("A1", "1:1", 9375, 9375),
        ("A1", "all output", 15000, 15000),
        ("A1", "that many input and that many output", 18750, 18750),
        ("A2", "sum", 10200, 12200),
        ("A2", "implied price", 2.877, 2.877),
        ("A3", "as claimed", 6550, 8550),
        ("A3", "at the real price, 3:1", -5637.5, -3637.5),
        ("A3", "at the real price, 1:1", -2825, -825),
        ("A4", "share", 58.8, 65.6),
        ("A5", "implied by the claim", 30.3, 30.3),
        ("A5", "tokens, all input", 80e9, 80e9),
        ("A5", "tokens, 3:1", 45.714e9, 45.714e9),
        ("A5", "tokens, all output", 20e9, 20e9),
        ("A6", "the claim's own rate, $12.5/M", 816e6, 976e6),
        ("A6", "all output, $10/M", 1020e6, 1220e6),
        ("A6", "1:1, $6.25/M", 1632e6, 1952e6),
        ("A6", "3:1 input to output, $4.375/M", 2331.4e6, 2788.6e6),
        ("A6", "all input, $2.5/M", 4080e6, 4880e6),
        ("A6", "GPUs alone, $12.5/M", 336e6, 336e6),
        ("A6", "GPUs alone, $4.375/M", 960e6, 960e6),
        ("A7", "mean load", 578.7, 578.7),
        ("A8a", "salaries", 600_000, 800_000),
        ("A8b", "left for all else", 100_000 / 12, 420_000 / 12),
        ("A8c", "salaries", 3e6, 3e6),
        ("A10", "input", 0.28, 0.28),
        ("A11", "1,000 prompt tokens", 118.8, 118.8),
    ],
)
def test_the_articles_arithmetic(claim, figure, low, high):
    assert _figure(claim, figure) == (pytest.approx(low, rel=2e-3), pytest.approx(high, rel=2e-3))


def test_the_impossible_bill_is_explained():
    words = FOUND["A1"].finding.words
    assert "$12.50 per million tokens, the dearest rate is $10" in words
    assert "right only for 50M input AND 50M output tokens a day" in words


def test_the_break_evens_contradict_each_other():
    words = FOUND["A6"].finding.words
    assert "50-200M a month and 300-900M (its daily figures x 30) contradict each other" in words
    assert "500M is below all of them" in words


def test_what_does_not_fit_is_said_with_its_size():
    assert "Llama-4-Maverick fp8: does not fit: needs" in FOUND["A7"].finding.words
    assert "bf16 does not fit" in FOUND["A11"].finding.words
    assert "A100-40GB has 39.5: does not fit" in FOUND["A12"].finding.words


def _bill(usd: float, tokens: float = 50e6) -> Checked:
    given = {"model": "gpt-4o", "tokens_per_day": tokens, "usd_per_month": usd}
    return check(Claim(id="X", says="so", check="api_bill", given=given), CATALOG)


def test_the_verdict_follows_the_numbers_and_not_the_claims_name():
    assert _bill(6562.5).finding.verdict == "in part"  # one mix
    assert _bill(30_000).finding.verdict == "wrong"
    assert "right only for" not in _bill(30_000).finding.words
    assert "right only for 10M input AND 10M output" in _bill(3750, 10e6).finding.words


def test_a_claim_that_cannot_be_read_says_what_is_missing():
    with pytest.raises(InputError, match="X: unknown check 'api_bil'; did you mean 'api_bill'"):
        check(Claim(id="X", says="so", check="api_bil", given={}), CATALOG)
    with pytest.raises(InputError, match="X: tokens_per_day: Missing"):
        check(Claim(id="X", says="so", check="api_bill", given={"model": "gpt-4o", "usd_per_month": 1}), CATALOG)
