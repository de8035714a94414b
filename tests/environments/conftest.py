"""An index of tiny wheels, and a site that installs from it alone."""

from pathlib import Path

import pytest

from orchestrator.environments.environment import Environment, Pip
from orchestrator.environments.site import Site
from tests.environments import wheels

TINY = Environment(
    name="tiny",
    version="1.0",
    purpose="a test",
    program="tiny-engine",
    check="tiny_engine",
    kinds={"cpu": Pip(requirements=("tiny-engine=={version}",), size_bytes=30_000_000)},
    images={"cuda": "example/tiny:{version}"},
    refusals={"rocm": "its maker has no build for it"},
)
PARTIAL = Environment(
    name="partial",
    version="1.0",
    purpose="a test",
    check="partial_engine",
    kinds={
        "cpu": Pip(
            requirements=("partial-engine=={version}",),
            first=("tiny-torch",),
            left_out=("tiny-torch", "tiny-vision"),
            known_as="partial=={version}+cpu",
            size_bytes=30_000_000,
        )
    },
)
"""Its distribution asks for one that the index has not, and is known by another name."""


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, the only place where pip looks."""
    folder = tmp_path / "index"
    wheels.write(folder, "tiny-engine")
    needs = ("tiny-torch==2.13+cpu", "tiny-vision", "tiny-tokens>=0.4; python_version > '3'", "none; extra == 'gpu'")
    wheels.write(folder, "partial-engine", requires=needs)
    wheels.write(folder, "tiny-torch", "2.13")
    wheels.write(folder, "tiny-tokens", "0.5")
    for name, value in wheels.only(folder).items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture
def said() -> list[str]:
    """What the site has said."""
    return []


@pytest.fixture
def site(tmp_path: Path, index: Path, said: list[str]) -> Site:
    """A site whose home is empty."""
    return Site(tmp_path / "home", say=said.append)
