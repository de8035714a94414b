"""Quantities of a recipe: `Bytes`, `Seconds`, `Usd` and `Tokens`; each is a number that reads and prints its unit.

`Bytes.parse("80GB")` is the int 80_000_000_000 and prints as "80 GB"; as a pydantic field the type reads the same
texts. Printing loses nothing: the text parses back to the same number, so an awkward size prints in bytes.
Arithmetic gives plain numbers: name the type again where a result is to be printed.
"""

import math
import re
from abc import abstractmethod
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import core_schema

_TEXT = re.compile(r"(?P<amount>\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*(?P<unit>[A-Za-z]*)")


class _Quantity:
    """What the four share: reading, exact printing and the pydantic schema."""

    UNITS: ClassVar[Mapping[str, str]]
    """Unit -> factor (as text, for exact decimals)."""
    FORMS: ClassVar[str]
    """Examples for the error message."""

    @classmethod
    @abstractmethod
    def _of(cls, amount: Decimal) -> Self: ...

    @classmethod
    def parse(cls, value: object) -> Self:
        """The quantity that a text or a plain number in the base unit names; ValueError names the allowed forms."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            if math.isfinite(value) and value >= 0:
                return cls._of(Decimal(str(float(value))) if isinstance(value, float) else Decimal(int(value)))
        elif isinstance(value, str):
            amount = cls._read(value.strip())
            if amount is not None:
                return cls._of(amount)
        raise ValueError(f"{value!r} is not {cls.__name__.lower()}; write it like {cls.FORMS}")

    @classmethod
    def _read(cls, text: str) -> Decimal | None:
        found = _TEXT.fullmatch(text)
        if found is None or (found["unit"] and found["unit"] not in cls.UNITS):
            return None
        amount = Decimal(found["amount"].replace("_", "")) * Decimal(cls.UNITS.get(found["unit"], "1"))
        return amount if math.isfinite(float(amount)) else None

    def _text(self, base: str) -> str:
        """The shortest exact text: some unit with at most three decimals, or all digits and the base unit."""
        exact = Decimal(str(self._number()))
        plain = f"{exact:f}{base}"
        texts = [plain] if exact >= 1 else []
        for unit, factor in self.UNITS.items():
            amount = exact / Decimal(factor)
            text = f"{amount:.3f}".rstrip("0").rstrip(".") + f" {unit}"
            if amount >= 1 and self.parse(text) == self:
                texts.append(text)
        return min(texts, key=len, default=plain)

    @abstractmethod
    def _number(self) -> int | float: ...

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        printed = core_schema.plain_serializer_function_ser_schema(str, when_used="json")
        return core_schema.no_info_plain_validator_function(cls.parse, serialization=printed)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": ["string", "number"], "description": f"Such as {cls.FORMS}."}


class _Whole(_Quantity, int):
    @classmethod
    def _of(cls, amount: Decimal) -> Self:
        return cls(int(amount.to_integral_value()))

    def _number(self) -> int:
        return int(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({int(self)})"


class _Real(_Quantity, float):
    @classmethod
    def _of(cls, amount: Decimal) -> Self:
        return cls(float(amount))

    def _number(self) -> float:
        return float(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({float(self)})"


class Bytes(_Whole):
    """Memory or disk, in bytes; GB is 10^9, GiB is 2^30."""

    UNITS = {
        "PB": "1e15",
        "TB": "1e12",
        "GB": "1e9",
        "MB": "1e6",
        "kB": "1e3",
        "KB": "1e3",
        "TiB": str(2**40),
        "GiB": str(2**30),
        "MiB": str(2**20),
        "KiB": str(2**10),
        "B": "1",
    }
    FORMS = '"80GB", "79.1GiB" or "512 MiB"'

    def __str__(self) -> str:
        return self._text(" B")


class Seconds(_Real):
    """A duration, in seconds; m is minutes."""

    UNITS = {
        "d": "86400",
        "h": "3600",
        "m": "60",
        "min": "60",
        "s": "1",
        "ms": "1e-3",
        "us": "1e-6",
    }
    FORMS = '"500ms", "30s", "10m", "6h" or "2d"'

    def __str__(self) -> str:
        return self._text(" s")


class Usd(_Real):
    """Money, in US dollars."""

    UNITS = {"USD": "1"}
    FORMS = '"$40", "0.60" or "40 USD"'

    @classmethod
    def _read(cls, text: str) -> Decimal | None:
        return super()._read(text.removeprefix("$").lstrip())

    def __str__(self) -> str:
        cents = f"{float(self):.2f}"
        return f"${cents}" if float(cents) == float(self) else f"${Decimal(str(float(self))):f}"


class Tokens(_Whole):
    """A number of tokens; B is 10^9."""

    UNITS = {"T": "1e12", "B": "1e9", "M": "1e6", "k": "1e3", "K": "1e3"}
    FORMS = '"4096", "8k", "120_000" or "1.5B"'

    def __str__(self) -> str:
        return self._text("")
