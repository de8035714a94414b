"""Numbers read as a finance person writes them."""

import pytest

from orchestrator.cli.cost_words import bound, dollars, number, saving, share, tokens


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (tokens(2.3314e9), "2.33 B"),
        (tokens(816e6), "816 M"),
        (tokens(999_999), "1 M"),
        (tokens(999.6), "1 k"),
        (tokens(50), "50"),
        (dollars(18750), "$18,750"),
        (dollars(-0.0325), "-$0.033"),
        (saving(-5637.5), "-$5,638"),
        (saving(102_600), "+$102,600"),
        (number(6562.5), "6,562.5"),
        (number(168_000), "168,000"),
        (number(0.023), "0.023"),
        (share(0.0283), "2.8%"),
        (share(0.75), "75%"),
        (bound(None), "never"),
    ],
)
def test_a_number_in_words(found, text):
    assert found == text
