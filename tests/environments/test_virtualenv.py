"""Which Python an environment is made with."""

import sys
from pathlib import Path

import pytest

from orchestrator.environments import virtualenv
from orchestrator.environments.environment import Pip
from orchestrator.errors import InputError
from tests.environments.conftest import TINY

OWN = f"{sys.version_info.major}.{sys.version_info.minor}"


def pip(*pythons: str) -> Pip:
    return Pip(requirements=(), pythons=pythons, size_bytes=1)


def test_orchs_own_python_makes_it_where_there_are_wheels_for_it():
    assert virtualenv.interpreter(TINY, pip()) == sys.executable
    assert virtualenv.interpreter(TINY, pip("2.7", OWN)) == sys.executable


def test_else_one_on_path_that_there_are_wheels_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=f"is made for Python 2.7 or 2.6; orch runs on {OWN}, and no other is on PATH"):
        virtualenv.interpreter(TINY, pip("2.7", "2.6"))
    other = tmp_path / "python2.6"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    assert virtualenv.interpreter(TINY, pip("2.7", "2.6")) == str(other)
