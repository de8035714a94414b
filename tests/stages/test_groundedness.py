"""What counts as a claim, and when a source supports it."""

import pytest

from orchestrator.stages._groundedness import claims, ungrounded_claims

SOURCE = "Licence: MIT\nPermits: commercial use, private use. Version 2.0, the user's copy"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Licence: MIT\nPermits: use", ["Licence: MIT", "Permits: use"]),
        ("- one\n* two\n3. three\n4) four", ["one", "two", "three", "four"]),
        ("It is MIT. It permits use! Does it? Yes", ["It is MIT.", "It permits use!", "Yes"]),
        ("use; copy", ["use", "copy"]),
        ("version 2.0", ["version 2.0"]),
        ("It is the.\n\n-", []),
    ],
)
def test_claims_are_lines_sentences_and_list_items(answer, expected):
    assert claims(answer) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("licence: mit", []),
        ("The licence is MIT; it permits patent use", ["it permits patent use"]),
        ("Version 3.0", ["Version 3.0"]),
        ("user's private copy", []),
        ("", []),
    ],
)
def test_a_claim_is_ungrounded_when_a_content_word_is_nowhere_in_the_source(answer, expected):
    assert ungrounded_claims(answer, SOURCE) == expected
