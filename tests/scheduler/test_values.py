"""Values are checked when they are made; a series is its values, whatever was changed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from states import run

from orchestrator.scheduler import series
from orchestrator.scheduler.series import Series
from orchestrator.scheduler.tables import RUN
from orchestrator.scheduler.values import WIDTH, Demand, Node, Run


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match="at most 16"):
        Node("n", "H100", (1000,) * (WIDTH + 1))
    with pytest.raises(ValueError, match="share"):
        Demand(1, 1200)
    with pytest.raises(ValueError, match="at least one option"):
        Run("r", Demand(), ())


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), max_size=30))
def test_a_series_that_was_changed_is_the_series_of_its_values(steps):
    kept, expected = Series[Run](), dict[str, Run]()
    for seconds, (put, number) in enumerate(steps, 1):
        name = f"r{number}"
        if put:
            expected[name] = run(name, seconds=float(seconds))
            kept = kept.changed(put=[expected[name]])
        else:
            expected.pop(name, None)
            kept = kept.changed(remove=[name])
        assert list(kept) == list(expected.values())
        assert series.table(kept, RUN).tobytes() == series.table(tuple(kept), RUN).tobytes()
