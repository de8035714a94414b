"""Draws follow the distribution that was asked for."""

import math
import random
from pathlib import Path
from statistics import fmean, median, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import InputError
from orchestrator.loadgen.workload.distributions import Distribution, read_numbers
from orchestrator.units import Seconds, Tokens


def draws(spec, *, kind=Tokens, seed=1, count=5000, cwd=Path()):
    draw = Distribution[kind].model_validate(spec).draw(random.Random(seed), cwd)
    return [draw() for _ in range(count)]


def test_a_fixed_value_is_always_the_same():
    assert set(draws(512)) == {512}


def test_uniform_draws_reach_both_ends():
    values = draws({"uniform": [3, 7]})
    assert set(values) == {3, 4, 5, 6, 7}
    assert fmean(values) == pytest.approx(5, rel=0.03)
    pauses = draws({"uniform": ["1s", "2s"]}, kind=Seconds)
    assert min(pauses) >= 1
    assert max(pauses) <= 2
    assert len(set(pauses)) > 4000


def test_log_normal_draws_have_the_median_and_the_spread():
    values = draws({"lognormal": {"median": 400, "sigma": 0.8}})
    assert median(values) == pytest.approx(400, rel=0.05)
    assert pstdev([math.log(value) for value in values]) == pytest.approx(0.8, rel=0.05)


def test_log_normal_draws_have_the_mean():
    assert fmean(draws({"lognormal": {"mean": 400, "sigma": 0.8}}, count=40_000)) == pytest.approx(400, rel=0.03)


@given(st.integers(1, 1000), st.floats(0.1, 3), st.integers(1, 500), st.integers(0, 500))
def test_log_normal_draws_keep_their_limits(centre, sigma, low, more):
    spec = {"lognormal": {"median": centre, "sigma": sigma, "min": low, "max": low + more}}
    assert all(low <= value <= low + more for value in draws(spec, count=20))


def test_lengths_of_a_file_are_as_frequent_as_there(tmp_path):
    (tmp_path / "lengths.txt").write_text("10\n10\n10\n\n90\n")
    values = draws({"file": "lengths.txt"}, cwd=tmp_path)
    assert set(values) == {10, 90}
    assert values.count(10) / len(values) == pytest.approx(0.75, abs=0.03)


def test_wrong_lines_of_a_file_are_named(tmp_path):
    path = tmp_path / "lengths.txt"
    path.write_text("10\nmany\n-3\n5\nnan\n")
    with pytest.raises(InputError) as caught:
        read_numbers(path)
    assert str(caught.value).split("\n") == [
        f"{path}:{line}: not a positive number: {text!r}" for line, text in ((2, "many"), (3, "-3"), (5, "nan"))
    ]


def test_an_empty_and_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="cannot read the lengths"):
        read_numbers(tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(InputError, match="has no numbers"):
        read_numbers(tmp_path / "empty.txt")


def test_the_seed_decides():
    spec = {"lognormal": {"median": 400, "sigma": 0.8}}
    assert draws(spec, seed=1) == draws(spec, seed=1) != draws(spec, seed=2)
