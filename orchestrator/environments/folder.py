"""The folder of one environment: `$ORCH_HOME/engines/NAME-VERSION-KIND`, and the mark that says that it is complete.

The mark is written last: without it the folder is half of an installation, whatever lies in it. A virtual environment
cannot be moved, so the folder cannot get its name only when it is complete, as other results of orch do.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, cast

from pydantic import ValidationError

from orchestrator.config import Model
from orchestrator.digests import digest_value
from orchestrator.environments.environment import KINDS, Environment, Kind

State = Literal["missing", "incomplete", "outdated", "complete"]
"""`outdated`: complete, but what orch would install by now differs."""


class Mark(Model):
    """What is known of a complete environment."""

    name: str
    version: str
    kind: Kind
    recipe: str
    """Digest of how it was made."""
    bytes: int
    """On disk."""
    seconds: float
    """That making it took."""


@dataclass(frozen=True)
class Folder:
    """Where one environment lies, or would lie."""

    path: Path

    @classmethod
    def of(cls, home: Path, environment: Environment, kind: Kind) -> Self:
        """For this environment under $ORCH_HOME."""
        return cls(home / "engines" / f"{environment.name}-{environment.version}-{kind}")

    @property
    def name(self) -> tuple[str, str, Kind] | None:
        """Name, version and kind that the folder is called after; None for any other folder."""
        found = re.fullmatch(rf"(?P<name>.+?)-(?P<version>\d.*)-(?P<kind>{'|'.join(KINDS)})", self.path.name)
        return (found["name"], found["version"], cast(Kind, found["kind"])) if found else None

    @property
    def lock(self) -> Path:
        """What pip installed: exact versions with digests; or the source that was built."""
        return self.path / "requirements.lock"

    @property
    def log(self) -> Path:
        """What pip, cmake and the compiler said."""
        return self.path.with_name(f"{self.path.name}.log")

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.path / "bin" / "python"

    @property
    def packages(self) -> Path:
        """Where pip puts modules; not there where there is no virtual environment."""
        return next(self.path.glob("lib/python*/site-packages"), self.path / "lib" / "site-packages")

    def mark(self) -> Mark | None:
        """None while the environment is missing or incomplete."""
        try:
            return Mark.model_validate_json(self._mark.read_text())
        except (OSError, ValidationError):
            return None

    def complete(self, mark: Mark) -> None:
        """From now on it is used."""
        partial = self._mark.with_suffix(".partial")
        partial.write_text(mark.model_dump_json(indent=2) + "\n")
        partial.rename(self._mark)

    def spoil(self) -> None:
        """From now on it is not used."""
        self._mark.unlink(missing_ok=True)

    def state(self, environment: Environment, kind: Kind) -> State:
        """What can be said without running anything in it."""
        mark = self.mark()
        if mark is None or self._lost_python():
            return "incomplete" if self.path.exists() else "missing"
        return "complete" if mark.recipe == recipe_digest(environment, kind) else "outdated"

    def _lost_python(self) -> bool:
        """Whether the interpreter that it was made with has been removed since."""
        return self.python.is_symlink() and not self.python.exists()

    @property
    def _mark(self) -> Path:
        return self.path / "complete.json"


def recipe_digest(environment: Environment, kind: Kind) -> str:
    """Of everything that decides what is installed; a new field of recipes changes nothing for those without it."""
    recipe = environment.kinds.get(kind)
    made = recipe.model_dump(exclude={"size_bytes"}, exclude_defaults=True) if recipe else None
    return digest_value([environment.name, environment.version, environment.check, made])


def size(path: Path) -> int:
    """Bytes of all files below it; links count as nothing."""
    return sum(found.lstat().st_size for found in path.rglob("*") if found.is_file() and not found.is_symlink())
