"""An SLO that cannot be meant is refused, with the contradiction in words."""

import pytest
from pydantic import ValidationError

from orchestrator.bench.result import Slo


def test_limits_are_read_with_their_unit_and_kept_as_seconds() -> None:
    slo = Slo.model_validate({"ttft": "500ms", "e2e": "1m", "tpot": 0.05, "share": 0.95})
    assert slo.model_dump() == {"ttft": 0.5, "itl": None, "tpot": 0.05, "e2e": 60.0, "share": 0.95}
    assert Slo.model_validate_json(slo.model_dump_json()) == slo


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"ttft": "2s", "e2e": "1s"}, r"ttft may take 2 s, but the whole request \(e2e\) only 1 s"),
        ({"tpot": "2s", "e2e": "1s"}, "tpot may take 2 s"),
        ({"itl": "2s", "e2e": "1s"}, "itl may take 2 s"),
        ({"ttft": "800ms", "tpot": "300ms", "e2e": "1s"}, r"ttft \(800 ms\) and tpot \(300 ms\) together exceed e2e"),
        ({"itl": 0}, "no request takes 0 s"),
        ({"ttft": "500ms", "share": 1.2}, "above 0 and up to 1, not 1.2"),
        ({"ttft": "500ms", "share": 99}, "for 99 % write 0.99"),
        ({"ttft": "500ms", "share": 0}, "above 0"),
        ({"ttft": -1}, "not seconds"),
        ({"ttft": "soon"}, "not seconds"),
        ({}, "needs a limit"),
        ({"ttf": "1s"}, "ttf"),
    ],
)
def test_what_contradicts_itself_is_refused(given: dict[str, object], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        Slo.model_validate(given)


def test_limits_at_the_edge_are_no_contradiction() -> None:
    assert Slo(ttft=1, e2e=1).e2e == 1
    assert Slo(ttft=0.8, tpot=0.2, e2e=1, share=1).share == 1
