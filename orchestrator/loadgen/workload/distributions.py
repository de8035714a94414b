"""Distributions as a recipe spells them: `512`, `{uniform: [100, 500]}`, `{lognormal: {median: 400, sigma: 0.8}}`,
`{file: lengths.txt}`; and drawing from them.
"""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic_core import core_schema

from orchestrator.config import Model
from orchestrator.errors import InputError

N = TypeVar("N", bound=float)
Draw = Callable[[], float]
_REDRAWS = 100
_LISTED = 5


class LogNormal(Model, Generic[N]):
    """Most values near the median, a long tail above."""

    median: N | None = None
    """Half of the values are smaller."""
    mean: N | None = None
    """Instead of the median: the mean before `min` and `max` cut the ends off."""
    sigma: float = Field(gt=0, le=10)
    """Standard deviation of the natural logarithm; with 0.8 the 98th percentile is 27 times the 2nd."""
    min: N | None = None
    """Smaller values are drawn again."""
    max: N | None = None
    """Larger values are drawn again."""

    @model_validator(mode="after")
    def _one_centre(self) -> Self:
        if (self.median is None) == (self.mean is None):
            raise ValueError("give either a median or a mean")
        if not (self.median or self.mean):
            raise ValueError("the median or mean must be above 0")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self

    @property
    def mu(self) -> float:
        """Mean of the values' natural logarithm."""
        if self.median is not None:
            return math.log(self.median)
        assert self.mean is not None, "one of the two is given"
        return math.log(self.mean) - self.sigma**2 / 2


class Distribution(Model, Generic[N]):
    """Values of one kind: always the same, or drawn."""

    fixed: N | None = None
    """Always this value; a plain value means the same."""
    uniform: tuple[N, N] | None = None
    """Any value from the first to the second is as likely."""
    lognormal: LogNormal[N] | None = None
    """Around a median, with a long tail."""
    file: str | None = None
    """A text file with one number a line; each is as likely as it is frequent there."""

    @model_validator(mode="before")
    @classmethod
    def _plain_value(cls, value: Any) -> Any:
        return {"fixed": value} if isinstance(value, int | float | str) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"give one of a plain value, uniform, lognormal and file, not {found}")
        if self.uniform is not None and self.uniform[0] > self.uniform[1]:
            raise ValueError(f"uniform goes from the smaller to the larger value, not from {self.uniform[0]}")
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [{"type": ["number", "string"]}, super().__get_pydantic_json_schema__(schema, handler)]}

    @property
    def least(self) -> float:
        """No drawn value is smaller; 0 where that is not known."""
        if self.fixed is not None:
            return self.fixed
        return self.uniform[0] if self.uniform else 0.0

    def draw(self, rng: random.Random, cwd: Path) -> Draw:
        """A function that draws values. Raises InputError for a file that cannot be used."""
        if self.fixed is not None:
            fixed = int(self.fixed) if isinstance(self.fixed, int) else float(self.fixed)
            return lambda: fixed  # a plain number, as the other kinds draw: marshal writes no `Seconds`
        if self.uniform is not None:
            low, high = self.uniform
            if isinstance(low, int):
                return lambda: rng.randint(int(low), int(high))
            return lambda: rng.uniform(low, high)
        if self.lognormal is not None:
            return _lognormal(self.lognormal, rng)
        assert self.file is not None, "one kind is given"
        values = read_numbers(cwd / Path(self.file).expanduser())
        return lambda: rng.choice(values)

    def __str__(self) -> str:
        if self.fixed is not None:
            return str(self.fixed)
        if self.uniform is not None:
            return f"{self.uniform[0]} to {self.uniform[1]}"
        if self.lognormal is not None:
            kind = "median" if self.lognormal.median is not None else "mean"
            return f"log-normal, {kind} {self.lognormal.median or self.lognormal.mean}, sigma {self.lognormal.sigma:g}"
        return f"as in {self.file}"


def read_numbers(path: Path) -> list[float]:
    """The positive numbers of a text file, one a line. Raises InputError with the lines that hold none."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the lengths in {path}: {error}") from error
    found = [(number, _number(line)) for number, line in enumerate(lines, 1) if line.strip()]
    wrong = [f"{path}:{number}: not a positive number: {lines[number - 1]!r}" for number, value in found if not value]
    if wrong:
        raise InputError("\n".join(wrong[:_LISTED]))
    if not found:
        raise InputError(f"{path} has no numbers", next_step="write one number a line")
    return [value for _, value in found]


def _number(line: str) -> float:
    try:
        value = float(line)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0


def _lognormal(spec: LogNormal[N], rng: random.Random) -> Draw:
    low = 0.0 if spec.min is None else spec.min
    high = math.inf if spec.max is None else spec.max

    def draw() -> float:
        for _ in range(_REDRAWS):
            value = rng.lognormvariate(spec.mu, spec.sigma)
            if low <= value <= high:
                return value
        return min(max(value, low), high)

    return draw
