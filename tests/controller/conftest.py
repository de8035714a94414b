"""An engine that a test can rely on: the recipe's word for it is `sglang`."""

from pathlib import Path

import pytest

from orchestrator import engines

FAKES = Path(__file__).parents[1] / "fake_engines"


@pytest.fixture
def fake_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of tests/fake_engines are engines like those of the package."""
    monkeypatch.setattr(engines, "__path__", [*engines.__path__, str(FAKES)])
