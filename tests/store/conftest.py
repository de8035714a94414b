"""Every test of the store runs twice: on SQLite and on PostgreSQL."""

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.store import location

Another = Callable[[str], Path]


@pytest.fixture(params=["sqlite", "postgresql"], autouse=True)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kind of database that `Store(tmp_path)` opens in this test and in the processes that it starts."""
    kind: str = request.param
    if kind == "postgresql":
        monkeypatch.setenv(location.VARIABLE, request.getfixturevalue("postgresql").fresh())
    return kind


@pytest.fixture
def another(kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Another:
    """The folder of another, empty store of the same kind, which is opened from now on."""

    def make(name: str) -> Path:
        if kind == "postgresql":
            monkeypatch.setenv(location.VARIABLE, request.getfixturevalue("postgresql").fresh())
        return tmp_path / name

    return make
